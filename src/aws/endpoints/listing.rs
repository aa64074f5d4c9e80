//! The account's endpoints. Only a command that deletes asks for them.

use executor::cloud::CloudError;

use crate::clients::Clients;

/// Most endpoints that AWS lists in one page.
const PAGE: i32 = 100;

/// Names of all endpoints.
pub(super) async fn endpoints(clients: &Clients) -> Result<Vec<String>, CloudError> {
    let call = clients.call("list", "the endpoints".to_owned(), "sagemaker:ListEndpoints");
    let mut pages = clients.sagemaker().list_endpoints().max_results(PAGE).into_paginator().send();
    let mut names = Vec::new();
    while let Some(page) = pages.next().await {
        let page = page.map_err(|error| call.failed(&error))?;
        names.extend(page.endpoints.unwrap_or_default().into_iter().filter_map(|one| one.endpoint_name));
    }
    Ok(names)
}
