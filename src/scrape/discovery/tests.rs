//! Discovery against small simulated API servers, and the manager that runs it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::{DiscoveryManager, DiscoveryOptions, TargetSets};
use crate::config::{Config, LoadOptions, SdConfigs};
use crate::model::clock::SystemClock;
use crate::model::target_group::TargetGroup;
use crate::telemetry::Registry;

/// What a path (before `?`) is answered with; a list of answers is used up from the front, its last one stays.
type Answers = Arc<Mutex<BTreeMap<&'static str, Vec<String>>>>;

async fn answer(mut stream: tokio::net::TcpStream, answers: Answers) {
    let mut request = Vec::new();
    loop {
        while memchr::memmem::find(&request, b"\r\n\r\n").is_none() {
            if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
                return;
            }
        }
        let text = String::from_utf8_lossy(&request).into_owned();
        request.clear();
        let target = text.split(' ').nth(1).unwrap_or_default().to_owned();
        let path = target.split('?').next().unwrap_or_default();
        let watched = target.contains("watch=1");
        let key = if watched { format!("watch {path}") } else { path.to_owned() };
        let body = {
            let mut answers = answers.lock();
            match answers.iter_mut().find(|(name, _)| **name == key) {
                Some((_, bodies)) if bodies.len() > 1 => Some(bodies.remove(0)),
                Some((_, bodies)) => bodies.first().cloned(),
                None if watched => Some(String::new()),
                None => None,
            }
        };
        let (status, body) = body.map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn server(answers: &[(&'static str, &[&str])]) -> (String, Answers) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let answers: BTreeMap<&'static str, Vec<String>> =
        answers.iter().map(|(path, list)| (*path, list.iter().map(|b| (*b).to_owned()).collect())).collect();
    let answers = Arc::new(Mutex::new(answers));
    let shared = Arc::clone(&answers);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, Arc::clone(&shared)));
        }
    });
    (address, answers)
}

fn configs(yaml: &str) -> SdConfigs {
    let text = format!("scrape_configs:\n- job_name: j\n{yaml}");
    let config =
        Config::parse(&text, std::path::Path::new("/x/p.yml"), &LoadOptions::default()).expect("valid");
    config.scrape_configs[0].sd.clone()
}

fn manager() -> DiscoveryManager {
    let options = DiscoveryOptions { name: "scrape".into(), interval_ms: 10 };
    DiscoveryManager::new(options, &Registry::new(), Arc::new(SystemClock))
}

/// Waits until a set satisfies `enough`; a minute of silence is a failure.
async fn wait_for(
    sets: &mut watch::Receiver<Arc<TargetSets>>,
    set: &str,
    enough: impl Fn(&[Arc<TargetGroup>]) -> bool,
) -> Vec<Arc<TargetGroup>> {
    let waiting = async {
        loop {
            let now = sets.borrow_and_update().get(set).cloned();
            if let Some(groups) = now.filter(|groups| enough(groups)) {
                return groups;
            }
            sets.changed().await.expect("the manager lives");
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("discovery found nothing")
}

#[tokio::test]
async fn sets_share_providers_and_follow_the_configuration() {
    let manager = manager();
    let mut sets = manager.subscribe();
    let one = configs("  static_configs: [{targets: ['a:1', 'b:2'], labels: {x: y}}, {targets: ['c:3']}]\n");
    manager.apply([("p".to_owned(), one.clone()), ("q".to_owned(), one)].into());
    let p = wait_for(&mut sets, "p", |groups| groups.len() == 2).await;
    let q = wait_for(&mut sets, "q", |groups| groups.len() == 2).await;
    assert!(Arc::ptr_eq(&p[0], &q[0]), "equal configurations are run once");
    assert_eq!(p[0].labels["x"], "y");
    manager.apply([("p".to_owned(), configs("  static_configs: [{targets: ['d:4']}]\n"))].into());
    let p = wait_for(&mut sets, "p", |groups| groups.len() == 1).await;
    assert_eq!(p[0].targets[0]["__address__"], "d:4");
    manager.stop().await;
}

#[tokio::test]
async fn http_lists_are_taken_and_failures_keep_the_old() {
    let list = r#"[{"targets":["a:1"],"labels":{"x":"y"}}]"#;
    let (address, answers) = server(&[("/sd", &[list, "broken", list])]).await;
    let manager = manager();
    let mut sets = manager.subscribe();
    let yaml = format!("  http_sd_configs: [{{url: '{address}/sd', refresh_interval: 20ms}}]\n");
    manager.apply([("h".to_owned(), configs(&yaml))].into());
    let groups = wait_for(&mut sets, "h", |groups| groups.len() == 1).await;
    assert_eq!(groups[0].labels["__meta_url"], format!("{address}/sd"));
    let changed = r#"[{"targets":["a:1","b:1"]}]"#.to_owned();
    *answers.lock() = [("/sd", vec!["[null]".to_owned(), changed])].into();
    let groups = wait_for(&mut sets, "h", |groups| groups.iter().any(|g| g.targets.len() == 2)).await;
    assert_eq!(groups.len(), 1);
    manager.stop().await;
}

#[tokio::test]
async fn kubernetes_pods_are_listed_and_watched() {
    let pod = |name: &str, ip: &str| {
        format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"default","resourceVersion":"7","uid":"u-{name}",
            "labels":{{"app.kubernetes.io/name":"web"}},"annotations":null,
            "ownerReferences":[{{"kind":"ReplicaSet","name":"web-5d","controller":true}}]}},
            "spec":{{"nodeName":"n1","containers":[{{"name":"c","image":"i:1",
            "ports":[{{"name":"http","containerPort":8080,"protocol":"TCP"}}]}}]}},
            "status":{{"podIP":"{ip}","hostIP":"10.1.1.1","phase":"Running",
            "conditions":[{{"type":"Ready","status":"True"}}],
            "containerStatuses":[{{"name":"c","containerID":"docker://1"}}]}}}}"#
        )
        .replace('\n', "")
    };
    let list = format!(r#"{{"metadata":{{"resourceVersion":"7"}},"items":[{}]}}"#, pod("a", "10.0.0.1"));
    let event = format!(r#"{{"type":"ADDED","object":{}}}"#, pod("b", "10.0.0.2"));
    let node = r#"{"metadata":{},"items":[{"metadata":{"name":"n1","labels":{"zone":"eu"}}}]}"#;
    let (address, _) = server(&[
        ("/api/v1/pods", &[&list]),
        ("watch /api/v1/pods", &[&event, ""]),
        ("/api/v1/nodes", &[node]),
    ])
    .await;
    let manager = manager();
    let mut sets = manager.subscribe();
    let yaml = format!(
        "  kubernetes_sd_configs: [{{role: pod, api_server: '{address}', attach_metadata: {{node: true, deployment: true}}}}]\n"
    );
    manager.apply([("k".to_owned(), configs(&yaml))].into());
    let groups = wait_for(&mut sets, "k", |groups| groups.len() == 2).await;
    let labels = &groups[0].labels;
    for (name, value) in [
        ("namespace", "default"),
        ("pod_name", "a"),
        ("pod_ready", "true"),
        ("pod_label_app_kubernetes_io_name", "web"),
        ("pod_labelpresent_app_kubernetes_io_name", "true"),
        ("pod_controller_kind", "ReplicaSet"),
        ("pod_deployment_name", "web"),
        ("node_label_zone", "eu"),
    ] {
        assert_eq!(labels[&format!("__meta_kubernetes_{name}")], value, "{name}");
    }
    assert_eq!(groups[1].targets[0]["__address__"], "10.0.0.2:8080");
    assert_eq!(groups[1].targets[0]["__meta_kubernetes_pod_container_id"], "docker://1");
    manager.stop().await;
}

#[tokio::test]
async fn kubernetes_kinds_are_watched_once_for_all_sections() {
    let service = r#"{"metadata":{"name":"web","namespace":"d","labels":{"a":"b"}},
        "spec":{"type":"ClusterIP","clusterIP":"10.1.0.1","ports":[{"name":"http","port":80,"protocol":"TCP"}]}}"#
        .replace('\n', "");
    let list = |items: &str| format!(r#"{{"metadata":{{"resourceVersion":"1"}},"items":[{items}]}}"#);
    let first = format!(r#"{{"metadata":{{"resourceVersion":"1","continue":"next"}},"items":[{service}]}}"#);
    let second = list(&service.replace("web", "db"));
    let gone = r#"{"type":"ERROR","object":{"code":410,"message":"too old"}}"#;
    let bookmark = r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#;
    let pod = r#"{"metadata":{"name":"p1","namespace":"d"},"spec":{"nodeName":"n1","containers":[
        {"name":"c","ports":[{"name":"http","containerPort":8080,"protocol":"TCP"},
        {"name":"admin","containerPort":9090,"protocol":"TCP"}]}]},"status":{"podIP":"10.0.0.1","phase":"Running"}}"#
        .replace('\n', "");
    let endpoints = r#"{"metadata":{"name":"web","namespace":"d"},"subsets":[{"addresses":[{"ip":"10.0.0.1",
        "nodeName":"n1","targetRef":{"kind":"Pod","name":"p1","namespace":"d"}}],
        "notReadyAddresses":[{"ip":"10.0.0.2"}],"ports":[{"name":"http","port":8080,"protocol":"TCP"}]}]}"#
        .replace('\n', "");
    let slice =
        r#"{"metadata":{"name":"web-x","namespace":"d","labels":{"kubernetes.io/service-name":"web"}},
        "addressType":"IPv4","endpoints":[{"addresses":["10.0.0.1"],"conditions":{"ready":true},"zone":"eu",
        "targetRef":{"kind":"Pod","name":"p1","namespace":"d"}}],"ports":[{"name":"http","port":8080}]}"#
            .replace('\n', "");
    let node = r#"{"metadata":{"name":"n1","labels":{"disk":"ssd"}},"spec":{"providerID":"aws://1"},"status":{
        "addresses":[{"type":"InternalIP","address":"192.168.0.1"},{"type":"Hostname","address":"n1.x"}],
        "conditions":[{"type":"Ready","status":"True"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":10250}}}}"#
        .replace('\n', "");
    let ingress = r#"{"metadata":{"name":"i","namespace":"d"},"spec":{"ingressClassName":"nginx",
        "tls":[{"hosts":["*.x.org"]}],"rules":[{"host":"a.x.org","http":{"paths":[{"path":"/p"}]}}]}}"#
        .replace('\n', "");
    let (address, _) = server(&[
        ("/api/v1/services", &[&first, &second, &list(&service)]),
        ("watch /api/v1/services", &[gone, bookmark, ""]),
        ("/api/v1/pods", &[&list(&pod)]),
        ("/api/v1/endpoints", &[&list(&endpoints)]),
        ("/apis/discovery.k8s.io/v1/endpointslices", &[&list(&slice)]),
        ("/api/v1/nodes", &[&list(&node)]),
        ("/apis/networking.k8s.io/v1/ingresses", &[&list(&ingress)]),
    ])
    .await;
    let manager = manager();
    let mut sets = manager.subscribe();
    let section = |role: &str| {
        configs(&format!("  kubernetes_sd_configs: [{{role: {role}, api_server: '{address}'}}]\n"))
    };
    let roles = ["service", "endpoints", "endpointslice", "node", "ingress", "pod"];
    manager.apply(roles.iter().map(|role| ((*role).to_owned(), section(role))).collect());
    // Two pages at first, then one service after the version was too old.
    wait_for(&mut sets, "service", |groups| groups.len() == 1).await;
    let mut seen = BTreeMap::new();
    for role in roles {
        let groups = wait_for(&mut sets, role, |groups| groups.len() == 1).await;
        seen.insert(role, groups);
    }
    let all = |role: &str| {
        let group = &seen[role][0];
        let merged =
            |t: &BTreeMap<String, String>| group.labels.clone().into_iter().chain(t.clone()).collect();
        group.targets.iter().map(merged).collect::<Vec<BTreeMap<String, String>>>()
    };
    for (role, target, label, value) in [
        ("service", 0, "__address__", "web.d.svc:80"),
        ("service", 0, "__meta_kubernetes_service_cluster_ip", "10.1.0.1"),
        ("service", 0, "__meta_kubernetes_service_label_a", "b"),
        ("endpoints", 0, "__address__", "10.0.0.1:8080"),
        ("endpoints", 0, "__meta_kubernetes_pod_container_port_name", "http"),
        ("endpoints", 0, "__meta_kubernetes_service_name", "web"),
        ("endpoints", 1, "__meta_kubernetes_endpoint_ready", "false"),
        ("endpoints", 2, "__address__", "10.0.0.1:9090"),
        ("endpointslice", 0, "__meta_kubernetes_endpointslice_endpoint_conditions_ready", "true"),
        ("endpointslice", 0, "__meta_kubernetes_service_label_a", "b"),
        ("endpointslice", 1, "__address__", "10.0.0.1:9090"),
        ("node", 0, "__address__", "192.168.0.1:10250"),
        ("node", 0, "__meta_kubernetes_node_address_Hostname", "n1.x"),
        ("node", 0, "__meta_kubernetes_node_provider_id", "aws://1"),
        ("ingress", 0, "__address__", "a.x.org"),
        ("ingress", 0, "__meta_kubernetes_ingress_scheme", "https"),
        ("ingress", 0, "__meta_kubernetes_ingress_class_name", "nginx"),
        ("pod", 1, "__meta_kubernetes_pod_container_port_number", "9090"),
    ] {
        let targets = all(role);
        assert_eq!(
            targets[target].get(label).map(String::as_str),
            Some(value),
            "{role} {target} {label}: {targets:#?}"
        );
    }
    // Pods and services are needed by three sections each.
    assert_eq!(manager.0.kubernetes.len(), 6);
    manager.apply([("node".to_owned(), section("node"))].into());
    let one_left = async {
        while manager.0.kubernetes.len() > 1 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), one_left).await.expect("watches end with their users");
    manager.stop().await;
}

#[tokio::test]
async fn a_thousand_jobs_cost_one_watch_for_each_kind_and_one_copy_of_each_target() {
    let list = |items: &[String]| {
        format!(r#"{{"metadata":{{"resourceVersion":"1"}},"items":[{}]}}"#, items.join(","))
    };
    let meta =
        |n: usize| format!(r#""metadata":{{"name":"x{n}","namespace":"d","labels":{{"app":"a{n}"}}}}"#);
    let all = |of: &dyn Fn(usize) -> String| list(&(0..300).map(of).collect::<Vec<_>>());
    let pods = all(&|n| {
        let status = format!(r#""status":{{"podIP":"10.0.0.{}","phase":"Running"}}"#, n % 250);
        let ports = r#""spec":{"containers":[{"name":"c","ports":[{"containerPort":80}]}]}"#;
        format!("{{{},{ports},{status}}}", meta(n))
    });
    let services = all(&|n| format!(r#"{{{},"spec":{{"ports":[{{"port":80}}]}}}}"#, meta(n)));
    let address = |n: usize| format!(r#"{{"ip":"10.0.0.{}"}}"#, n % 250);
    let endpoints = all(&|n| {
        format!(r#"{{{},"subsets":[{{"addresses":[{}],"ports":[{{"port":80}}]}}]}}"#, meta(n), address(n))
    });
    let (address, answers) = server(&[
        ("/api/v1/pods", &[&pods, "asked again"]),
        ("/api/v1/services", &[&services, "asked again"]),
        ("/api/v1/endpoints", &[&endpoints, "asked again"]),
        ("watch /api/v1/pods", &[r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#]),
    ])
    .await;
    let manager = manager();
    let mut sets = manager.subscribe();
    let roles = ["pod", "service", "endpoints"].map(|role| {
        configs(&format!("  kubernetes_sd_configs: [{{role: {role}, api_server: '{address}'}}]\n"))
    });
    manager.apply((0..1000).map(|n| (format!("job{n:04}"), roles[n % 3].clone())).collect());
    let mut first: Vec<Vec<Arc<TargetGroup>>> = Vec::new();
    for n in 0..1000 {
        let groups = wait_for(&mut sets, &format!("job{n:04}"), |groups| groups.len() == 300).await;
        let shared = first.get(n % 3).is_none_or(|first| {
            first.len() == groups.len() && first.iter().zip(&groups).all(|(a, b)| Arc::ptr_eq(a, b))
        });
        assert!(shared, "job {n} has targets of its own");
        if n < 3 {
            first.push(groups);
        }
    }
    assert_eq!(manager.0.kubernetes.len(), 3);
    let answers = answers.lock().clone();
    for path in ["/api/v1/pods", "/api/v1/services", "/api/v1/endpoints"] {
        assert_eq!(answers[path], ["asked again"], "{path} is listed once");
    }
    manager.stop().await;
}

#[tokio::test]
async fn consul_services_are_followed() {
    let entry = r#"[{"Node":{"Node":"n","Address":"10.0.0.9","Datacenter":"d"},
                     "Service":{"ID":"w1","Service":"web","Port":80},"Checks":[]}]"#;
    let (address, _) = server(&[
        ("/v1/agent/self", &[r#"{"Config":{"Datacenter":"d"}}"#]),
        ("/v1/catalog/services", &[r#"{"web":["prod"],"other":[]}"#]),
        ("/v1/health/service/web", &[entry]),
    ])
    .await;
    let server = address.trim_start_matches("http://");
    let manager = manager();
    let mut sets = manager.subscribe();
    let yaml = format!(
        "  consul_sd_configs: [{{server: '{server}', services: [web], tags: [prod], refresh_interval: 1s}}]\n"
    );
    manager.apply([("c".to_owned(), configs(&yaml))].into());
    let groups = wait_for(&mut sets, "c", |groups| !groups.is_empty()).await;
    assert_eq!(groups.len(), 1);
    assert_eq!(groups[0].targets[0]["__address__"], "10.0.0.9:80");
    assert_eq!(groups[0].labels["__meta_consul_service"], "web");
    manager.stop().await;
}

#[tokio::test]
async fn cloud_apis_are_read_page_by_page() {
    use super::refresh::Refresher as _;
    let (address, _) = server(&[
        ("/v1/services", &[r#"[{"Namespace":"default","Services":[{"ServiceName":"web","Tags":[]}]}]"#]),
        (
            "/v1/service/web",
            &[r#"[{"ID":"i","ServiceName":"web","Datacenter":"d","Address":"10.0.0.3","Port":9,"Tags":["a","b"]}]"#],
        ),
        (
            "/v2/droplets",
            &[
                r#"{"droplets":[{"id":1,"name":"x","image":{"slug":null,"name":"deb"},"tags":["t"],
                    "networks":{"v4":[{"ip_address":"10.9.9.9","type":"private"},{"ip_address":"192.0.2.1","type":"public"}]}}],
                    "links":{"pages":{"next":"more"}}}"#,
                r#"{"droplets":[{"id":2,"networks":{"v4":[{"ip_address":"192.0.2.2","type":"public"}]}}],"links":{}}"#,
            ],
        ),
        ("/v1/networks", &[r#"{"networks":[{"id":4,"name":"my net"}],"meta":{"pagination":{"next_page":null}}}"#]),
        (
            "/v1/servers",
            &[r#"{"servers":[{"id":7,"name":"s","public_net":{"ipv4":{"ip":"192.0.2.3"},"ipv6":null},
                "private_net":[{"network":4,"ip":"10.0.0.4"}],"labels":{"a/b":"c"}}],"meta":{"pagination":{}}}"#],
        ),
    ])
    .await;
    let config = |yaml: String| configs(&yaml).0.remove(0);
    let crate::config::SdConfig::Nomad(nomad) =
        config(format!("  nomad_sd_configs: [{{server: '{address}'}}]\n"))
    else {
        panic!("a Nomad section");
    };
    let groups = super::nomad::NomadDiscovery::new(&nomad).unwrap().refresh().await.unwrap();
    assert_eq!(groups[0].targets[0]["__address__"], "10.0.0.3:9");
    assert_eq!(groups[0].targets[0]["__meta_nomad_tags"], ",a,b,");
    let crate::config::SdConfig::DigitalOcean(ocean) = config("  digitalocean_sd_configs: [{}]\n".into())
    else {
        panic!("a DigitalOcean section");
    };
    let mut discovery = super::digitalocean::DigitalOceanDiscovery::new(&ocean, &address).unwrap();
    let groups = discovery.refresh().await.unwrap();
    let addresses: Vec<&str> = groups[0].targets.iter().map(|t| t["__address__"].as_str()).collect();
    assert_eq!(addresses, ["192.0.2.1:80", "192.0.2.2:80"]);
    assert_eq!(groups[0].targets[0]["__meta_digitalocean_private_ipv4"], "10.9.9.9");
    let crate::config::SdConfig::Hetzner(hetzner) = config("  hetzner_sd_configs: [{role: hcloud}]\n".into())
    else {
        panic!("a Hetzner section");
    };
    let mut discovery = super::hetzner::HetznerDiscovery::at(&hetzner, &address).unwrap();
    let labels = &discovery.refresh().await.unwrap()[0].targets[0];
    assert_eq!(labels["__meta_hetzner_hcloud_private_ipv4_my_net"], "10.0.0.4");
    assert_eq!(labels["__meta_hetzner_hcloud_label_a_b"], "c");
}
