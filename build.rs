//! Compiles the built user interface in: writes a table of `include_bytes!` over `web/dist`, sorted by path, with
//! the compressed twins of each file. Without `web/dist` the table is empty and the binary serves a plain page.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn collect(dir: &Path, out: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, out)?;
        } else {
            out.push(path);
        }
    }
    Ok(())
}

fn compressed(file: &Path, ending: &str) -> String {
    let mut twin = file.as_os_str().to_owned();
    twin.push(ending);
    let twin = PathBuf::from(twin);
    if twin.is_file() { format!("Some(include_bytes!({twin:?}))") } else { "None".into() }
}

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let dist = root.join("web").join("dist");
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed={}", if dist.is_dir() { "web/dist" } else { "web" });
    let mut files = Vec::new();
    if dist.is_dir() {
        collect(&dist, &mut files)?;
    }
    let mut rows: Vec<(String, String)> = Vec::new();
    for file in &files {
        let name = file.strip_prefix(&dist).unwrap_or(file).to_string_lossy().replace('\\', "/");
        if name.ends_with(".br") || name.ends_with(".gz") {
            continue;
        }
        let row = format!(
            "    Asset {{ path: {name:?}, plain: include_bytes!({file:?}), br: {}, gz: {} }},\n",
            compressed(file, ".br"),
            compressed(file, ".gz")
        );
        rows.push((name, row));
    }
    rows.sort();
    let mut table =
        String::from("/// The files of `web/dist`, sorted by path.\npub static ASSETS: &[Asset] = &[\n");
    for (_, row) in &rows {
        let _ = write!(table, "{row}");
    }
    table.push_str("];\n");
    let out = PathBuf::from(env::var_os("OUT_DIR").unwrap_or_default()).join("ui_assets.rs");
    fs::write(out, table)?;
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = std::process::Command::new(rustc).arg("--version").output()?;
    let version = String::from_utf8_lossy(&version.stdout).trim().to_owned();
    println!("cargo:rustc-env=MEERKAT_COMPILER={version}");
    for (name, variable) in [
        ("MEERKAT_REVISION", "MEERKAT_BUILD_REVISION"),
        ("MEERKAT_BRANCH", "MEERKAT_BUILD_BRANCH"),
        ("MEERKAT_DATE", "MEERKAT_BUILD_DATE"),
        ("MEERKAT_USER", "MEERKAT_BUILD_USER"),
    ] {
        println!("cargo:rerun-if-env-changed={variable}");
        let value = env::var(variable).unwrap_or_else(|_| "unknown".into());
        println!("cargo:rustc-env={name}={value}");
    }
    Ok(())
}
