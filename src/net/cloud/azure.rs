//! Who is this server to Azure? A secret or federated token exchanged at Microsoft's directory, or the identity of
//! the machine, asked from its metadata service.

use super::{
    Authenticator, Authorized, Environment, Outgoing, TIMEOUT, Token, TokenCache, bearer, call, post_form,
    set_authorization, token_client,
};
use crate::config::Secret;
use crate::config::remote::AzureAdConfig;
use crate::net::error::NetError;
use crate::net::{HttpClient, Request};

/// The metadata service of a machine.
const IMDS: &str = "http://169.254.169.254";

/// The separate clouds of Azure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AzureCloud {
    /// The usual one.
    Public,
    /// That of China.
    China,
    /// That of the government of the United States.
    Government,
}

impl AzureCloud {
    /// By the names that configurations use, in any case.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Some(match name.to_ascii_uppercase().as_str() {
            "AZUREPUBLIC" | "AZUREPUBLICCLOUD" | "AZURECLOUD" | "AZUREGERMANCLOUD" => Self::Public,
            "AZURECHINA" | "AZURECHINACLOUD" => Self::China,
            "AZUREGOVERNMENT" | "AZUREUSGOVERNMENT" | "AZUREUSGOVERNMENTCLOUD" => Self::Government,
            _ => return None,
        })
    }

    fn authority(self) -> &'static str {
        match self {
            Self::Public => "https://login.microsoftonline.com",
            Self::China => "https://login.chinacloudapi.cn",
            Self::Government => "https://login.microsoftonline.us",
        }
    }

    /// Address of the resource manager, which is also the audience of its tokens.
    #[must_use]
    pub fn resource_manager(self) -> &'static str {
        match self {
            Self::Public => "https://management.azure.com",
            Self::China => "https://management.chinacloudapi.cn",
            Self::Government => "https://management.usgovcloudapi.net",
        }
    }

    /// Audience of tokens for ingesting metrics.
    fn ingestion(self) -> &'static str {
        match self {
            Self::Public => "https://monitor.azure.com//.default",
            Self::China => "https://monitor.azure.cn//.default",
            Self::Government => "https://monitor.azure.us//.default",
        }
    }
}

/// How tokens are had.
#[derive(Debug, Clone, PartialEq)]
pub enum AzureAccess {
    /// With the secret of an application.
    Secret {
        /// Tenant.
        tenant: String,
        /// Application.
        client: String,
        /// Its secret.
        secret: Secret,
    },
    /// With the identity of the machine; that of `client` if it is not empty.
    ManagedIdentity {
        /// Which of the machine's identities.
        client: String,
    },
    /// With a token that Kubernetes projects into the pod; empty fields come from the environment.
    WorkloadIdentity {
        /// Tenant.
        tenant: String,
        /// Application.
        client: String,
        /// File with the token.
        file: String,
    },
    /// The first of the above that the environment offers.
    Sdk {
        /// Tenant; that of the environment when empty.
        tenant: String,
    },
}

/// Fetches and keeps tokens for one scope.
pub struct AzureToken {
    access: AzureAccess,
    cloud: AzureCloud,
    /// Ends in `/.default`.
    scope: String,
    environment: Environment,
    client: HttpClient,
    cache: TokenCache,
}

impl std::fmt::Debug for AzureToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AzureToken").field("scope", &self.scope).finish_non_exhaustive()
    }
}

fn fail(reason: impl Into<String>) -> NetError {
    NetError::Credentials { provider: "Azure", reason: reason.into() }
}

impl AzureToken {
    /// Tokens for the scope of `resource`.
    pub fn new(
        access: AzureAccess,
        cloud: AzureCloud,
        resource: &str,
        environment: Environment,
    ) -> Result<Self, NetError> {
        let scope = if resource.ends_with("/.default") {
            resource.to_owned()
        } else {
            format!("{resource}/.default")
        };
        Ok(Self { access, cloud, scope, environment, client: token_client()?, cache: TokenCache::default() })
    }

    /// Tokens as an `azuread` section asks for them.
    pub fn from_config(config: &AzureAdConfig, environment: Environment) -> Result<Self, NetError> {
        let cloud = AzureCloud::named(&config.cloud)
            .ok_or_else(|| fail(format!("there is no cloud {:?}", config.cloud)))?;
        let access = if let Some(identity) = &config.managed_identity {
            AzureAccess::ManagedIdentity { client: identity.client_id.clone() }
        } else if let Some(identity) = &config.workload_identity {
            AzureAccess::WorkloadIdentity {
                tenant: identity.tenant_id.clone(),
                client: identity.client_id.clone(),
                file: identity.token_file_path.as_path().to_string_lossy().into_owned(),
            }
        } else if let Some(oauth) = &config.oauth {
            AzureAccess::Secret {
                tenant: oauth.tenant_id.clone(),
                client: oauth.client_id.clone(),
                secret: oauth.client_secret.clone(),
            }
        } else if let Some(sdk) = &config.sdk {
            AzureAccess::Sdk { tenant: sdk.tenant_id.clone() }
        } else {
            return Err(fail(
                "signing in with a certificate is not supported; use oauth, workload_identity, managed_identity or sdk",
            ));
        };
        let scope = if config.scope.is_empty() { cloud.ingestion() } else { &config.scope };
        Self::new(access, cloud, scope, environment)
    }

    /// The value of the `Authorization` header.
    pub async fn header(&self) -> Result<Secret, NetError> {
        self.cache.get(self.fetch(&self.access)).await
    }

    async fn fetch(&self, access: &AzureAccess) -> Result<Token, NetError> {
        match access {
            AzureAccess::Secret { tenant, client, secret } => {
                self.exchange(tenant, client, &[("client_secret", secret.expose())]).await
            }
            AzureAccess::ManagedIdentity { client } => self.managed(client).await,
            AzureAccess::WorkloadIdentity { tenant, client, file } => {
                self.federated(tenant, client, file).await
            }
            AzureAccess::Sdk { tenant } => self.first(tenant).await,
        }
    }

    async fn first(&self, tenant: &str) -> Result<Token, NetError> {
        let env = |name: &str| self.environment.get(name);
        let tenant =
            if tenant.is_empty() { env("AZURE_TENANT_ID").unwrap_or_default() } else { tenant.to_owned() };
        let client = env("AZURE_CLIENT_ID").unwrap_or_default();
        if let Some(secret) = env("AZURE_CLIENT_SECRET").filter(|_| !tenant.is_empty() && !client.is_empty())
        {
            return self.exchange(&tenant, &client, &[("client_secret", secret.as_str())]).await;
        }
        if env("AZURE_FEDERATED_TOKEN_FILE").is_some() {
            return self.federated(&tenant, &client, "").await;
        }
        self.managed(&client).await.map_err(|e| {
            fail(format!(
                "the environment has neither AZURE_CLIENT_SECRET nor AZURE_FEDERATED_TOKEN_FILE, and the machine offers \
                 no identity ({e})"
            ))
        })
    }

    async fn federated(&self, tenant: &str, client: &str, file: &str) -> Result<Token, NetError> {
        let or_env = |value: &str, name: &str| match value {
            "" => self.environment.get(name).ok_or_else(|| fail(format!("{name} is not set"))),
            value => Ok(value.to_owned()),
        };
        let tenant = or_env(tenant, "AZURE_TENANT_ID")?;
        let client = or_env(client, "AZURE_CLIENT_ID")?;
        let file = or_env(file, "AZURE_FEDERATED_TOKEN_FILE")?;
        let token = std::fs::read_to_string(&file)
            .map_err(|e| fail(format!("cannot read the federated token {file}: {e}")))?;
        let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        let pairs = [("client_assertion_type", kind), ("client_assertion", token.trim())];
        self.exchange(&tenant, &client, &pairs).await
    }

    async fn exchange(&self, tenant: &str, client: &str, proof: &[(&str, &str)]) -> Result<Token, NetError> {
        let authority =
            self.environment.get("AZURE_AUTHORITY_HOST").unwrap_or_else(|| self.cloud.authority().into());
        let url = format!("{}/{tenant}/oauth2/v2.0/token", authority.trim_end_matches('/'));
        let mut pairs =
            vec![("grant_type", "client_credentials"), ("client_id", client), ("scope", self.scope.as_str())];
        pairs.extend_from_slice(proof);
        let (status, body) = post_form(&self.client, &url, &pairs).await?;
        bearer("Azure", "the directory", status, &body)
    }

    async fn managed(&self, client: &str) -> Result<Token, NetError> {
        let env = |name: &str| self.environment.get(name);
        let resource = self.scope.trim_end_matches("/.default").trim_end_matches('/');
        let mut pairs = vec![("resource", resource)];
        if !client.is_empty() {
            pairs.push(("client_id", client));
        }
        // App Service and Functions announce an endpoint of their own.
        let own = env("IDENTITY_ENDPOINT").zip(env("IDENTITY_HEADER"));
        let (base, version) = match &own {
            Some((endpoint, _)) => (endpoint.clone(), "2019-08-01"),
            None => {
                let host = env("AZURE_POD_IDENTITY_AUTHORITY_HOST").unwrap_or_else(|| IMDS.into());
                (format!("{}/metadata/identity/oauth2/token", host.trim_end_matches('/')), "2018-02-01")
            }
        };
        pairs.push(("api-version", version));
        let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&pairs).finish();
        let url = format!("{base}?{query}");
        let mut request = Request::get(&url, TIMEOUT);
        request.headers.insert("metadata", http::HeaderValue::from_static("true"));
        if let Some((_, header)) = &own {
            let value = http::HeaderValue::from_str(header)
                .map_err(|_| NetError::Header { name: "X-IDENTITY-HEADER".into() })?;
            request.headers.insert("x-identity-header", value);
        }
        let (status, body) = call(&self.client, request).await?;
        bearer("Azure", "the identity endpoint of the machine", status, &body)
    }
}

impl Authenticator for AzureToken {
    fn authorize<'a>(&'a self, outgoing: Outgoing<'a>) -> Authorized<'a> {
        Box::pin(async move { set_authorization(outgoing.headers, &self.header().await?) })
    }
}
