//! Mechanisms against recorded answers: `testdata/discovery/*.json` hold a section of the configuration, what a
//! simulated server answers to which request, and the targets that must come out.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::refresh::Refresher;
use crate::config::{Config, LoadOptions, SdConfig};
use crate::model::target_group::TargetGroup;
use crate::telemetry::Registry;

/// One exchange. Exchanges are used up in order, the last that fits stays.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    /// Method and path without query.
    on: String,
    /// What the request has besides, in query, head or body.
    #[serde(default)]
    has: Vec<String>,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// The body: a text as it is, anything else as JSON.
    answer: Value,
}

fn ok() -> u16 {
    200
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// What it shows.
    #[serde(rename = "shows")]
    _shows: String,
    /// The section, with `$ADDRESS` for the server's address.
    config: Value,
    exchanges: Vec<Exchange>,
    /// How often is refreshed before the result counts.
    #[serde(default = "once")]
    rounds: usize,
    /// Labels that targets must have, in order; `null` stands for a label that must be missing.
    targets: Vec<BTreeMap<String, Option<String>>>,
    /// The error instead.
    #[serde(default)]
    error: Option<String>,
}

fn once() -> usize {
    1
}

type Exchanges = Arc<Mutex<Vec<Exchange>>>;

async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
            return None;
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .to_ascii_lowercase()
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ").and_then(|l| l.parse::<usize>().ok()));
        if body.len() >= length.unwrap_or(0) {
            return Some(text);
        }
    }
}

async fn serve(mut stream: TcpStream, exchanges: Exchanges, address: String) {
    while let Some(text) = request(&mut stream).await {
        let line: Vec<&str> = text.splitn(3, ' ').collect();
        let path = line[1].split('?').next().unwrap_or_default();
        let key = format!("{} {path}", line[0]);
        let found = {
            let mut exchanges = exchanges.lock();
            let fits = |e: &Exchange| e.on == key && e.has.iter().all(|part| text.contains(part.as_str()));
            let places: Vec<usize> =
                exchanges.iter().enumerate().filter(|(_, e)| fits(e)).map(|(i, _)| i).collect();
            match places[..] {
                [] => None,
                [one] => Some(exchanges[one].clone()),
                [first, ..] => Some(exchanges.remove(first)),
            }
        };
        let (status, headers, body) = match found {
            Some(e) => {
                let body = e.answer.as_str().map_or_else(|| e.answer.to_string(), str::to_owned);
                (e.status, e.headers, body.replace("$ADDRESS", &address))
            }
            None => (599, BTreeMap::new(), format!("nothing answers {key}: {text}")),
        };
        let mut head = format!("HTTP/1.1 {status} x\r\nContent-Length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn rounds(mut discovery: impl Refresher, rounds: usize) -> Result<Vec<TargetGroup>, String> {
    let mut last = Err("no round".to_owned());
    for _ in 0..rounds {
        last = discovery.refresh().await;
    }
    last
}

async fn run(config: &SdConfig, address: &str, n: usize) -> Result<Vec<TargetGroup>, String> {
    let registry = Registry::new();
    let of_role = match config {
        SdConfig::Aws(aws) => aws.of_role(),
        _ => None,
    };
    match of_role.as_ref().unwrap_or(config) {
        SdConfig::DockerSwarm(c) => rounds(super::swarm::SwarmDiscovery::new(c)?, n).await,
        SdConfig::Ec2(c) => rounds(super::ec2::Ec2Discovery::new(c)?, n).await,
        SdConfig::Lightsail(c) => rounds(super::ec2::LightsailDiscovery::new(c)?, n).await,
        SdConfig::Ecs(c) => rounds(super::ecs::EcsDiscovery::at(c, address)?, n).await,
        SdConfig::Msk(c) => rounds(super::msk::MskDiscovery::new(c)?, n).await,
        SdConfig::Rds(c) => rounds(super::rds::RdsDiscovery::new(c)?, n).await,
        SdConfig::Elasticache(c) => rounds(super::elasticache::ElasticacheDiscovery::new(c)?, n).await,
        SdConfig::Stackit(c) => {
            let token = format!("{address}/token");
            rounds(super::stackit::StackitDiscovery::at(c, &token)?, n).await
        }
        SdConfig::Azure(c) => {
            rounds(super::azure::AzureDiscovery::with(c, address, None, &registry)?, n).await
        }
        SdConfig::Gce(c) => rounds(super::gce::GceDiscovery::with(c, address, None)?, n).await,
        SdConfig::Openstack(c) => rounds(super::openstack::OpenstackDiscovery::new(c)?, n).await,
        SdConfig::DigitalOcean(c) => {
            rounds(super::digitalocean::DigitalOceanDiscovery::new(c, address)?, n).await
        }
        SdConfig::Hetzner(c) => rounds(super::hetzner::HetznerDiscovery::at(c, address)?, n).await,
        SdConfig::Linode(c) => rounds(super::linode::LinodeDiscovery::new(c, address)?, n).await,
        SdConfig::Eureka(c) => rounds(super::eureka::EurekaDiscovery::new(c)?, n).await,
        SdConfig::PuppetDb(c) => rounds(super::puppetdb::PuppetDbDiscovery::new(c)?, n).await,
        SdConfig::Marathon(c) => rounds(super::marathon::MarathonDiscovery::new(c)?, n).await,
        SdConfig::Triton(c) => rounds(super::triton::TritonDiscovery::at(c, address)?, n).await,
        SdConfig::Vultr(c) => rounds(super::vultr::VultrDiscovery::new(c, address)?, n).await,
        SdConfig::Scaleway(c) => rounds(super::scaleway::ScalewayDiscovery::new(c)?, n).await,
        SdConfig::Uyuni(c) => rounds(super::uyuni::UyuniDiscovery::new(c)?, n).await,
        SdConfig::Ionos(c) => rounds(super::ionos::IonosDiscovery::new(c)?, n).await,
        SdConfig::Ovhcloud(c) => rounds(super::ovhcloud::OvhcloudDiscovery::new(c)?, n).await,
        SdConfig::Kuma(c) => rounds(super::kuma::KumaDiscovery::new(c)?, n).await,
        SdConfig::Outscale(c) => rounds(super::outscale::OutscaleDiscovery::new(c)?, n).await,
        other => panic!("{} has no cases", other.key()),
    }
}

async fn check(name: &str, case: Case) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let exchanges: Exchanges = Arc::new(Mutex::new(case.exchanges));
    let shared = address.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&exchanges), shared.clone()));
        }
    });
    let job = serde_json::json!({ "scrape_configs": [{ "job_name": "j" }] });
    let mut job = job;
    for (key, section) in case.config.as_object().expect("a section") {
        job["scrape_configs"][0][key] = section.clone();
    }
    // JSON is YAML.
    let yaml = job.to_string().replace("$ADDRESS", &address);
    let config = Config::parse(&yaml, std::path::Path::new("/x/p.yml"), &LoadOptions::default())
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let result = run(&config.scrape_configs[0].sd.0[0], &address, case.rounds).await;
    if let Some(error) = case.error {
        let message = result.expect_err(name);
        assert!(message.contains(&error), "{name}: {message:?} does not say {error:?}");
        return;
    }
    let groups = result.unwrap_or_else(|e| panic!("{name}: {e}"));
    let all: Vec<BTreeMap<String, String>> = groups
        .iter()
        .flat_map(|g| g.targets.iter().map(|t| g.labels.clone().into_iter().chain(t.clone()).collect()))
        .collect();
    assert_eq!(all.len(), case.targets.len(), "{name}: {all:#?}");
    for (i, (target, wanted)) in all.iter().zip(&case.targets).enumerate() {
        for (label, value) in wanted {
            assert_eq!(target.get(label), value.as_ref(), "{name}, target {i}, {label}: {target:#?}");
        }
    }
}

#[tokio::test]
async fn recorded_answers_become_targets() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/discovery"));
    let mut count = 0;
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the folder").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    for path in files.into_iter().filter(|p| p.extension().is_some_and(|e| e == "json")) {
        let text = std::fs::read_to_string(&path).expect("a file");
        let cases: BTreeMap<String, Case> =
            serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for (name, case) in cases {
            let file = path.file_stem().expect("a name").to_string_lossy();
            tokio::time::timeout(std::time::Duration::from_secs(60), check(&format!("{file}/{name}"), case))
                .await
                .expect("in time");
            count += 1;
        }
    }
    assert!(count >= 20, "only {count} cases");
}
