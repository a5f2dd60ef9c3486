//! Targets from EC2 instances and from Lightsail's.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::aws::{AwsClient, MAX_PAGES, aws_section, tags};
use super::fields::{Fields, Meta};
use super::refresh::Refresher;
use super::{LabelMap, join_host_port};
use crate::config::sd::aws::{Ec2Filter, Ec2SdConfig, LightsailSdConfig};
use crate::model::target_group::TargetGroup;

/// Version of EC2's API.
pub(super) const VERSION: &str = "2016-11-15";

pub(super) struct Ec2Discovery {
    client: AwsClient,
    filters: Vec<Ec2Filter>,
    port: u16,
    /// Identities of zones by name; they stay the same as long as the server runs.
    zones: Option<BTreeMap<String, String>>,
}

impl Ec2Discovery {
    pub(super) fn new(config: &Ec2SdConfig) -> Result<Self, String> {
        let client = AwsClient::new(&aws_section!(config), "ec2", "ec2")?;
        Ok(Self { client, filters: config.filters.clone(), port: config.port, zones: None })
    }

    async fn read_zones(&mut self) {
        let pairs = [("Action", "DescribeAvailabilityZones"), ("Version", VERSION)];
        let pairs = pairs.map(|(n, v)| (n.to_owned(), v.to_owned()));
        match self.client.form(&pairs).await {
            Ok(answer) => {
                let zones = Fields(&answer).items("/availabilityZoneInfo");
                self.zones = Some(zones.map(|z| (z.text("/zoneName"), z.text("/zoneId"))).collect());
            }
            // It takes a permission of its own, which not everybody grants.
            Err(error) => tracing::debug!(error, "cannot describe availability zones"),
        }
    }
}

/// The default IPv6 address, the primary ones by place of their interface, and all.
fn ipv6(instance: Fields<'_>) -> (Option<String>, Vec<String>, Vec<String>) {
    let (mut primary, mut all) = (Vec::new(), Vec::new());
    if instance.has("/vpcId") {
        for interface in instance.items("/networkInterfaceSet").filter(|i| i.has("/subnetId")) {
            for entry in interface.items("/ipv6AddressesSet") {
                let Some(address) = entry.some("/ipv6Address") else { continue };
                all.push(address.clone());
                let place = interface.some("/attachment/deviceIndex").and_then(|i| i.parse::<usize>().ok());
                // Instances have a few interfaces at most; the bound is against nonsense.
                if entry.text("/isPrimaryIpv6") == "true"
                    && let Some(place) = place.filter(|p| *p < 1024)
                {
                    primary.resize(primary.len().max(place + 1), String::new());
                    primary[place] = address;
                }
            }
        }
    }
    let default = primary.iter().chain(&all).find(|a| !a.is_empty()).cloned();
    (default, primary, all)
}

fn target(
    reservation: Fields<'_>,
    instance: Fields<'_>,
    region: &str,
    zones: &BTreeMap<String, String>,
    port: u16,
) -> Option<LabelMap> {
    let private = instance.some("/privateIpAddress");
    let (default, primary, all) = ipv6(instance);
    let address = private.clone().or_else(|| default.clone())?;
    let mut meta = Meta::new("__meta_ec2_");
    meta.set("region", region);
    meta.set_some("owner_id", reservation.some("/ownerId"));
    meta.set_some("default_ipv6_address", default);
    meta.copy_some(
        instance,
        &[
            ("instance_id", "/instanceId"),
            ("private_ip", "/privateIpAddress"),
            ("private_dns_name", "/privateDnsName"),
            ("platform", "/platform"),
            ("ami", "/imageId"),
            ("instance_state", "/instanceState/name"),
            ("instance_lifecycle", "/instanceLifecycle"),
            ("architecture", "/architecture"),
        ],
    );
    meta.set("instance_type", instance.text("/instanceType"));
    if let Some(public) = instance.some("/ipAddress") {
        meta.set("public_ip", public);
        meta.set_some("public_dns_name", instance.some("/dnsName"));
    }
    meta.set_list("primary_ipv6_addresses", &primary, ",");
    meta.set_list("ipv6_addresses", &all, ",");
    if let Some(zone) = instance.some("/placement/availabilityZone") {
        meta.set("availability_zone_id", zones.get(&zone).cloned().unwrap_or_default());
        meta.set("availability_zone", zone);
    }
    if let Some(network) = instance.some("/vpcId") {
        meta.set("vpc_id", network);
        meta.set_some("primary_subnet_id", instance.some("/subnetId"));
        let mut subnets: Vec<String> = Vec::new();
        for subnet in instance.items("/networkInterfaceSet").filter_map(|i| i.some("/subnetId")) {
            if !subnets.contains(&subnet) {
                subnets.push(subnet);
            }
        }
        meta.set("subnet_id", super::surrounded([subnets.join(",").as_str()], ","));
    }
    meta.set_tags("tag_", tags(instance, "/tagSet", "/key", "/value"));
    Some(meta.at(join_host_port(&address, port)))
}

impl Refresher for Ec2Discovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        if self.zones.is_none() {
            self.read_zones().await;
        }
        let region = self.client.region().await?;
        let mut targets = Vec::new();
        let mut token = String::new();
        for _ in 0..MAX_PAGES {
            let mut pairs = vec![
                ("Action".to_owned(), "DescribeInstances".to_owned()),
                ("Version".to_owned(), VERSION.to_owned()),
            ];
            for (i, filter) in (1..).zip(&self.filters) {
                pairs.push((format!("Filter.{i}.Name"), filter.name.clone()));
                for (k, value) in (1..).zip(&filter.values) {
                    pairs.push((format!("Filter.{i}.Value.{k}"), value.clone()));
                }
            }
            if !token.is_empty() {
                pairs.push(("NextToken".to_owned(), token.clone()));
            }
            let answer = self.client.form(&pairs).await?;
            let answer = Fields(&answer);
            let none = BTreeMap::new();
            let zones = self.zones.as_ref().unwrap_or(&none);
            for reservation in answer.items("/reservationSet") {
                let instances = reservation.items("/instancesSet");
                targets.extend(instances.filter_map(|i| target(reservation, i, &region, zones, self.port)));
            }
            token = answer.text("/nextToken");
            if token.is_empty() {
                break;
            }
        }
        Ok(vec![TargetGroup { source: region.to_string(), targets, labels: LabelMap::new() }])
    }
}

pub(super) struct LightsailDiscovery {
    client: AwsClient,
    port: u16,
}

impl LightsailDiscovery {
    pub(super) fn new(config: &LightsailSdConfig) -> Result<Self, String> {
        let client = AwsClient::new(&aws_section!(config), "lightsail", "lightsail")?;
        Ok(Self { client, port: config.port })
    }
}

fn lightsail_target(instance: Fields<'_>, region: &str, port: u16) -> Option<LabelMap> {
    let private = instance.some("/privateIpAddress")?;
    let mut meta = Meta::new("__meta_lightsail_");
    meta.set("region", region);
    meta.copy(
        instance,
        &[
            ("availability_zone", "/location/availabilityZone"),
            ("blueprint_id", "/blueprintId"),
            ("bundle_id", "/bundleId"),
            ("instance_name", "/name"),
            ("instance_state", "/state/name"),
            ("instance_support_code", "/supportCode"),
            ("private_ip", "/privateIpAddress"),
        ],
    );
    meta.set_some("public_ip", instance.some("/publicIpAddress"));
    meta.set_list("ipv6_addresses", &instance.texts("/ipv6Addresses"), ",");
    meta.set_tags("tag_", tags(instance, "/tags", "/key", "/value"));
    Some(meta.at(join_host_port(&private, port)))
}

impl Refresher for LightsailDiscovery {
    async fn refresh(&mut self) -> Result<Vec<TargetGroup>, String> {
        let region = self.client.region().await?;
        let mut targets = Vec::new();
        let mut body = json!({});
        for _ in 0..MAX_PAGES {
            let answer: Value = self.client.target("Lightsail_20161128.GetInstances", &body).await?;
            let answer = Fields(&answer);
            targets
                .extend(answer.items("/instances").filter_map(|i| lightsail_target(i, &region, self.port)));
            match answer.some("/nextPageToken").filter(|t| !t.is_empty()) {
                Some(token) => body["pageToken"] = token.into(),
                None => break,
            }
        }
        Ok(vec![TargetGroup { source: region.to_string(), targets, labels: LabelMap::new() }])
    }
}
