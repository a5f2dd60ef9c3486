//! Credentials against a small simulated metadata service and token endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;

/// Requests as they came: head and body.
type Seen = Arc<Mutex<Vec<String>>>;

/// Answers each path with a text; everything else with 404.
async fn server(answers: &[(&str, &str)]) -> (String, Seen) {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = format!("http://{}", listener.local_addr().expect("an address"));
    let seen = Seen::default();
    let shared = Arc::clone(&seen);
    let answers: BTreeMap<String, String> =
        answers.iter().map(|(path, body)| ((*path).to_owned(), (*body).to_owned())).collect();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            let text = loop {
                if !matches!(stream.read_buf(&mut request).await, Ok(1..)) {
                    break String::new();
                }
                let text = String::from_utf8_lossy(&request).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.to_ascii_lowercase().lines().find_map(|line| {
                    line.strip_prefix("content-length: ").and_then(|l| l.parse::<usize>().ok())
                });
                if body.len() >= length.unwrap_or(0) {
                    break text;
                }
            };
            let path = text.split(' ').nth(1).unwrap_or_default().split('?').next().unwrap_or_default();
            let (status, body) = match answers.get(path) {
                Some(body) => ("200 OK", body.as_str()),
                None => ("404 Not Found", ""),
            };
            shared.lock().push(text.clone());
            let answer = format!(
                "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, seen)
}

fn environment(pairs: &[(&str, &str)]) -> Environment {
    Environment::Table(pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect())
}

const ROLE: &str =
    r#"{"AccessKeyId":"IMDSKEY","SecretAccessKey":"s","Token":"t","Expiration":"2999-01-01T00:00:00Z"}"#;
const STS: &str = "<AssumeRoleResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleResult><Credentials>\
    <AccessKeyId>STSKEY</AccessKeyId><SecretAccessKey>s</SecretAccessKey><SessionToken>tok</SessionToken>\
    <Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>";

#[tokio::test]
async fn aws_keys_are_found_in_the_order_of_its_tools() {
    let (address, seen) = server(&[
        ("/latest/api/token", "session"),
        ("/latest/meta-data/placement/region", "eu-north-1"),
        ("/latest/meta-data/iam/security-credentials/", "my-role\n"),
        ("/latest/meta-data/iam/security-credentials/my-role", ROLE),
        ("/container", ROLE),
        ("/", STS),
    ])
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("credentials");
    std::fs::write(
        &file,
        "[default]\naws_access_key_id=FILEKEY\naws_secret_access_key=s\n[chained]\nrole_arn=arn:x\nsource_profile=default\n",
    )
    .expect("written");
    let token = folder.path().join("token");
    std::fs::write(&token, "web-token\n").expect("written");
    let (file, token) = (file.to_string_lossy().into_owned(), token.to_string_lossy().into_owned());
    let imds = ("AWS_EC2_METADATA_SERVICE_ENDPOINT", address.as_str());
    let sts = ("AWS_ENDPOINT_URL_STS", address.as_str());
    let region = ("AWS_REGION", "eu-west-1");
    let shared = ("AWS_SHARED_CREDENTIALS_FILE", file.as_str());
    let full = format!("{address}/container");
    let access = AwsAccess::default();
    let with_keys =
        AwsAccess { access_key: "OWN".into(), secret_key: Secret::new("s"), ..AwsAccess::default() };
    let chained = AwsAccess { profile: "chained".into(), ..AwsAccess::default() };
    let role = AwsAccess { role_arn: "arn:y".into(), external_id: "ext".into(), ..with_keys.clone() };
    let env_keys = [("AWS_ACCESS_KEY_ID", "ENVKEY"), ("AWS_SECRET_ACCESS_KEY", "s")];
    for (access, variables, want) in [
        (&with_keys, vec![env_keys[0], env_keys[1]], "OWN"),
        (&access, vec![env_keys[0], env_keys[1], shared], "ENVKEY"),
        (&access, vec![shared, imds], "FILEKEY"),
        (&chained, vec![shared, sts, region], "STSKEY"),
        (&role, vec![sts, region], "STSKEY"),
        (
            &access,
            vec![("AWS_WEB_IDENTITY_TOKEN_FILE", token.as_str()), ("AWS_ROLE_ARN", "arn:z"), sts, region],
            "STSKEY",
        ),
        (&access, vec![("AWS_CONTAINER_CREDENTIALS_FULL_URI", full.as_str())], "IMDSKEY"),
        (&access, vec![imds], "IMDSKEY"),
    ] {
        let signer = AwsSigner::new(access.clone(), "aps", environment(&variables)).expect("a signer");
        let found = signer.credentials().await.unwrap_or_else(|e| panic!("{variables:?}: {e}"));
        assert_eq!(found.access_key, want, "{variables:?}");
    }
    let signer = AwsSigner::new(access.clone(), "aps", environment(&[imds])).expect("a signer");
    assert_eq!(&*signer.region().await.expect("a region"), "eu-north-1");
    let posts: Vec<String> = seen.lock().iter().filter(|r| r.starts_with("POST / ")).cloned().collect();
    assert!(posts.iter().any(|r| r.contains("Action=AssumeRole&") && r.contains("ExternalId=ext")));
    assert!(posts.iter().any(|r| r.contains("WebIdentityToken=web-token") && !r.contains("AWS4-HMAC")));
    assert!(posts.iter().filter(|r| r.contains("AWS4-HMAC-SHA256 Credential=")).count() >= 2);
    let lost =
        AwsSigner::new(access, "aps", environment(&[("AWS_EC2_METADATA_DISABLED", "true")])).expect("built");
    let message = lost.credentials().await.expect_err("nothing to find").to_string();
    assert!(message.starts_with("no AWS credentials: neither the configuration"), "{message}");
}

#[tokio::test]
async fn azure_tokens_come_from_directory_or_machine() {
    let token = r#"{"access_token":"T","expires_in":"3600"}"#;
    let (address, seen) =
        server(&[("/ten/oauth2/v2.0/token", token), ("/metadata/identity/oauth2/token", token)]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("token");
    std::fs::write(&file, "federated").expect("written");
    let file = file.to_string_lossy().into_owned();
    let environment = environment(&[
        ("AZURE_AUTHORITY_HOST", &address),
        ("AZURE_POD_IDENTITY_AUTHORITY_HOST", &address),
        ("AZURE_TENANT_ID", "ten"),
        ("AZURE_CLIENT_ID", "app"),
    ]);
    for access in [
        AzureAccess::Secret { tenant: "ten".into(), client: "app".into(), secret: Secret::new("hidden") },
        AzureAccess::WorkloadIdentity { tenant: String::new(), client: String::new(), file },
        AzureAccess::ManagedIdentity { client: "mine".into() },
        AzureAccess::Sdk { tenant: String::new() },
    ] {
        let name = format!("{access:?}");
        let resource = AzureCloud::Public.resource_manager();
        let source =
            AzureToken::new(access, AzureCloud::Public, resource, environment.clone()).expect("built");
        assert_eq!(source.header().await.unwrap_or_else(|e| panic!("{name}: {e}")).expose(), "Bearer T");
        let before = seen.lock().len();
        source.header().await.expect("kept");
        assert_eq!(seen.lock().len(), before, "{name}: a fresh token is kept");
        assert!(!format!("{source:?}{name}").contains("hidden"));
    }
    let seen = seen.lock().join("\n");
    assert!(seen.contains("client_secret=hidden&") || seen.contains("client_secret=hidden"));
    assert!(seen.contains("client_assertion=federated"));
    assert!(seen.contains("resource=https%3A%2F%2Fmanagement.azure.com&client_id=mine"));
}

#[tokio::test]
async fn google_tokens_come_from_files_or_metadata() {
    let token = r#"{"access_token":"G","expires_in":3600,"token_type":"Bearer"}"#;
    let path = "/computeMetadata/v1/instance/service-accounts/default/token";
    let (address, seen) = server(&[("/token", token), (path, token)]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("user.json");
    let json = format!(
        r#"{{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r","token_uri":"{address}/token"}}"#
    );
    std::fs::write(&file, json).expect("written");
    let host = address.trim_start_matches("http://");
    let by_file = environment(&[("GOOGLE_APPLICATION_CREDENTIALS", &file.to_string_lossy())]);
    let by_metadata = environment(&[("GCE_METADATA_HOST", host)]);
    for env in [by_file, by_metadata] {
        let source = GoogleToken::new("scope", None, env).expect("built");
        assert_eq!(source.header().await.expect("a token").expose(), "Bearer G");
    }
    let seen = seen.lock().join("\n");
    assert!(seen.contains("grant_type=refresh_token"));
    assert!(seen.to_ascii_lowercase().contains("metadata-flavor: google"));
    let odd = folder.path().join("odd.json");
    std::fs::write(&odd, r#"{"type":"external_account"}"#).expect("written");
    let source = GoogleToken::new("scope", Some(odd), environment(&[])).expect("built");
    let message = source.header().await.expect_err("not supported").to_string();
    assert!(message.contains("external_account"), "{message}");
}
