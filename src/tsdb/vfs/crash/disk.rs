//! What is on the disk, what of it would a power cut leave, and which calls fail?

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

const SECTOR: usize = 512;
/// Node of the root directory.
pub const ROOT: usize = 0;

/// Names of a directory and the nodes they lead to.
pub type Names = BTreeMap<String, usize>;

#[derive(Debug, Clone)]
pub enum Node {
    File {
        data: Vec<u8>,
        /// Bytes that a power cut cannot take.
        synced: usize,
    },
    Dir {
        now: Names,
        /// Names that a power cut cannot take.
        synced: Names,
        /// What happened since, each with its number among the operations of all directories.
        pending: Vec<(u64, DirOp)>,
    },
}

impl Node {
    pub fn empty_file() -> Self {
        Self::File { data: Vec::new(), synced: 0 }
    }

    pub fn empty_dir() -> Self {
        Self::Dir { now: Names::new(), synced: Names::new(), pending: Vec::new() }
    }
}

#[derive(Debug, Clone)]
pub enum DirOp {
    Link(String, usize),
    Unlink(String),
    Rename(String, String, usize),
}

impl DirOp {
    pub fn apply(&self, names: &mut Names) {
        match self {
            DirOp::Link(name, node) => {
                names.insert(name.clone(), *node);
            }
            DirOp::Unlink(name) => {
                names.remove(name);
            }
            DirOp::Rename(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

/// Which calls fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The call with this number (from 0) fails, later ones work.
    Once(u64),
    /// The call with this number and all later ones fail.
    From(u64),
}

/// The disk, and what goes wrong with it.
#[derive(Debug)]
pub struct State {
    pub nodes: Vec<Node>,
    /// Operations on directories so far.
    pub operations: u64,
    pub locks: BTreeSet<PathBuf>,
    pub calls: u64,
    pub fault: Option<Fault>,
    pub reads: u64,
    pub read_fault: Option<Fault>,
    pub failed_syncs: Option<Fault>,
    pub syncs: u64,
    pub quota: Option<u64>,
    /// How many bits are written until one is flipped that nobody notices.
    pub flip: Option<u64>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            nodes: vec![Node::empty_dir()],
            operations: 0,
            locks: BTreeSet::new(),
            calls: 0,
            fault: None,
            reads: 0,
            read_fault: None,
            failed_syncs: None,
            syncs: 0,
            quota: None,
            flip: None,
        }
    }
}

pub fn hits(fault: Option<Fault>, n: u64) -> bool {
    match fault {
        Some(Fault::Once(at)) => at == n,
        Some(Fault::From(at)) => at <= n,
        None => false,
    }
}

pub fn name_of(path: &Path) -> io::Result<String> {
    let name = path.file_name().and_then(|n| n.to_str());
    name.map(str::to_owned).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

impl State {
    pub fn call(&mut self) -> io::Result<()> {
        let n = self.calls;
        self.calls += 1;
        if hits(self.fault, n) {
            return Err(io::Error::other(format!("injected failure of call {n}")));
        }
        Ok(())
    }

    pub fn read(&mut self) -> io::Result<()> {
        let n = self.reads;
        self.reads += 1;
        if hits(self.read_fault, n) {
            return Err(io::Error::other(format!("injected failure of read {n}")));
        }
        Ok(())
    }

    pub fn node(&self, path: &Path) -> io::Result<usize> {
        let mut at = ROOT;
        for part in path.components() {
            let Component::Normal(name) = part else { continue };
            let Node::Dir { now, .. } = &self.nodes[at] else {
                return Err(io::Error::from(io::ErrorKind::NotADirectory));
            };
            let next = name.to_str().and_then(|name| now.get(name));
            at = *next.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        }
        Ok(at)
    }

    pub fn data(&self, node: usize) -> &[u8] {
        match &self.nodes[node] {
            Node::File { data, .. } => data,
            Node::Dir { .. } => &[],
        }
    }

    pub fn names(&self, dir: usize) -> io::Result<&Names> {
        match &self.nodes[dir] {
            Node::Dir { now, .. } => Ok(now),
            Node::File { .. } => Err(io::Error::from(io::ErrorKind::NotADirectory)),
        }
    }

    pub fn parent(&self, path: &Path) -> io::Result<usize> {
        self.node(path.parent().unwrap_or(Path::new("/")))
    }

    pub fn change(&mut self, dir: usize, op: DirOp) -> io::Result<()> {
        self.change_all([(dir, op)])
    }

    /// Changes of several directories under one number: they last together or not at all, as a rename between
    /// directories does on a file system with a journal.
    pub fn change_all<const N: usize>(&mut self, changes: [(usize, DirOp); N]) -> io::Result<()> {
        let number = self.operations;
        for (dir, op) in changes {
            let Node::Dir { now, pending, .. } = &mut self.nodes[dir] else {
                return Err(io::Error::from(io::ErrorKind::NotADirectory));
            };
            op.apply(now);
            pending.push((number, op));
        }
        self.operations += 1;
        Ok(())
    }

    pub fn add(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        let (dir, name, number) = (self.parent(path)?, name_of(path)?, self.nodes.len());
        if self.names(dir)?.contains_key(&name) {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        self.nodes.push(node);
        self.change(dir, DirOp::Link(name, number))?;
        Ok(number)
    }

    /// Paths of all files below a directory, in order, each with its node.
    pub fn files(&self) -> Vec<(PathBuf, usize)> {
        let mut found = Vec::new();
        let mut open = vec![(PathBuf::from("/"), ROOT)];
        while let Some((path, node)) = open.pop() {
            match &self.nodes[node] {
                Node::File { .. } => found.push((path, node)),
                Node::Dir { now, .. } => open.extend(now.iter().map(|(name, node)| (path.join(name), *node))),
            }
        }
        found.sort();
        found
    }

    pub fn used(&self) -> u64 {
        let nodes: BTreeSet<usize> = self.files().into_iter().map(|(_, node)| node).collect();
        nodes.into_iter().map(|node| self.data(node).len() as u64).sum()
    }

    pub fn room(&self) -> u64 {
        self.quota.map_or(u64::MAX, |quota| quota.saturating_sub(self.used()))
    }

    pub fn append(&mut self, node: usize, bytes: &[u8]) {
        if let Node::File { data, .. } = &mut self.nodes[node] {
            let begin = data.len() as u64 * 8;
            data.extend_from_slice(bytes);
            let bits = bytes.len() as u64 * 8;
            match self.flip {
                Some(after) if after < bits => {
                    data[((begin + after) / 8) as usize] ^= 1 << (after % 8);
                    self.flip = None;
                }
                after => self.flip = after.map(|after| after - bits),
            }
        }
    }

    /// Removes a tree from its leaves; a failure leaves the rest standing.
    pub fn remove(&mut self, path: &Path) -> io::Result<()> {
        let node = self.node(path)?;
        if let Node::Dir { now, .. } = &self.nodes[node] {
            let names: Vec<String> = now.keys().cloned().collect();
            for name in names {
                self.remove(&path.join(name))?;
            }
        }
        self.call()?;
        self.change(self.parent(path)?, DirOp::Unlink(name_of(path)?))
    }
}

/// What is left of the unsynced end of a file.
pub fn lose_pages(random: &mut fastrand::Rng, data: &mut Vec<u8>, synced: &mut usize) {
    let len = random.usize(*synced..=data.len());
    let len = if random.bool() { (len / SECTOR * SECTOR).max(*synced) } else { len };
    data.truncate(len);
    // Some pages may not have been written although later ones were.
    if random.u8(..4) == 0 {
        let mut at = synced.next_multiple_of(SECTOR);
        while at < len {
            let end = (at + SECTOR).min(len);
            if random.bool() {
                data[at..end].fill(0);
            }
            at = end;
        }
    }
    *synced = len;
}
