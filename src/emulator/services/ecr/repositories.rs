//! The operations on repositories.

use std::sync::Arc;

use serde_json::{Value, json};

use super::errors::invalid;
use super::records::{ImageRepository, ImageStore, RepositoryKey};
use crate::caller::Caller;
use crate::clock;
use crate::paging::cut;
use crate::protocol::{Answer, ApiError, epoch_seconds, text};
use crate::tags::{check_tags, tag_list, tag_map};

/// Entries of a page when the request does not say how many.
pub(super) const PAGE: usize = 100;

pub(super) fn create(store: &Arc<ImageStore>, request: &Value, caller: &Caller) -> Answer {
    check_tags(request.get("tags"))?;
    let key = RepositoryKey::of(request, caller);
    let mut all = store.repositories(&key.region);
    if all.contains_key(&key) {
        let RepositoryKey { account, name, .. } = &key;
        let message = format!("The repository with name '{name}' already exists in the registry with id '{account}'");
        return Err(ApiError::new("RepositoryAlreadyExistsException", message));
    }
    let encryption = request.get("encryptionConfiguration").cloned();
    let repository = ImageRepository {
        is_immutable: text(request, "imageTagMutability").is_some_and(|kind| kind.starts_with("IMMUTABLE")),
        scans_on_push: request.pointer("/imageScanningConfiguration/scanOnPush") == Some(&Value::Bool(true)),
        created_ms: clock::now_ms(),
        encryption: encryption.unwrap_or_else(|| json!({"encryptionType": "AES256"})),
        ..ImageRepository::default()
    };
    store.shared.tags.create(&key.arn(), tag_map(request.get("tags")));
    let description = description(&key, &repository);
    all.insert(key, repository);
    Ok(Some(json!({"repository": description})))
}

fn description(key: &RepositoryKey, repository: &ImageRepository) -> Value {
    json!({
        "repositoryArn": key.arn(),
        "registryId": key.account,
        "repositoryName": key.name,
        "repositoryUri": key.uri(),
        "createdAt": epoch_seconds(repository.created_ms),
        "imageTagMutability": if repository.is_immutable { "IMMUTABLE" } else { "MUTABLE" },
        "imageScanningConfiguration": {"scanOnPush": repository.scans_on_push},
        "encryptionConfiguration": repository.encryption,
    })
}

pub(super) fn describe(store: &Arc<ImageStore>, request: &Value, caller: &Caller) -> Answer {
    let account = text(request, "registryId").unwrap_or(&caller.account);
    let all = store.repositories(&caller.region);
    let Some(names) = request["repositoryNames"].as_array() else {
        let own = all.iter().filter(|(key, _)| key.account == account && key.region == caller.region);
        return page(request, "repositories", "repositories", own.map(|(key, one)| description(key, one)).collect());
    };
    let described = names.iter().filter_map(Value::as_str).map(|name| {
        let (account, region) = (account.to_owned(), caller.region.clone());
        let key = RepositoryKey { account, region, name: name.to_owned() };
        let repository = all.get(&key).ok_or_else(|| key.not_found())?;
        Ok(description(&key, repository))
    });
    Ok(Some(json!({"repositories": described.collect::<Result<Vec<_>, ApiError>>()?})))
}

/// Repositories have no policies here.
pub(super) fn policy(store: &Arc<ImageStore>, request: &Value, caller: &Caller) -> Answer {
    let key = RepositoryKey::of(request, caller);
    if !store.repositories(&key.region).contains_key(&key) {
        return Err(key.not_found());
    }
    let RepositoryKey { account, name, .. } = &key;
    let message = format!(
        "Repository policy does not exist for the repository with name '{name}' in the registry with id '{account}'"
    );
    Err(ApiError::new("RepositoryPolicyNotFoundException", message))
}

pub(super) fn delete(store: &Arc<ImageStore>, request: &Value, caller: &Caller) -> Answer {
    let key = RepositoryKey::of(request, caller);
    let mut all = store.repositories(&key.region);
    let repository = all.get(&key).ok_or_else(|| key.not_found())?;
    if !repository.images.is_empty() && request["force"] != true {
        let RepositoryKey { account, name, .. } = &key;
        let message = format!(
            "The repository with name '{name}' in registry with id '{account}' cannot be deleted because it still contains images"
        );
        return Err(ApiError::new("RepositoryNotEmptyException", message));
    }
    let description = description(&key, repository);
    all.remove(&key);
    store.shared.tags.remove(&key.arn());
    Ok(Some(json!({"repository": description})))
}

/// Answers with the page of a list that the request asks for; its members begin with a small letter.
pub(super) fn page(request: &Value, member: &str, kind: &str, all: Vec<Value>) -> Answer {
    let limit = request["maxResults"].as_u64().and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE);
    let (shown, next) = cut(text(request, "nextToken"), limit, kind, all)
        .ok_or_else(|| invalid("Invalid parameter at 'nextToken' failed to satisfy constraint: 'Invalid token'"))?;
    let mut answer = json!({member: shown});
    if let Some(next) = next {
        answer["nextToken"] = json!(next);
    }
    Ok(Some(answer))
}

fn not_taggable(arn: &str) -> ApiError {
    invalid(format!("Invalid parameter at 'resourceArn' failed to satisfy constraint: 'there is no repository {arn}'"))
}

pub(super) fn list_tags(store: &Arc<ImageStore>, request: &Value, _: &Caller) -> Answer {
    let arn = text(request, "resourceArn").unwrap_or_default();
    let tags = store.shared.tags.with(arn, |one| tag_list(&one.tags)).ok_or_else(|| not_taggable(arn))?;
    Ok(Some(json!({"tags": tags})))
}

pub(super) fn tag(store: &Arc<ImageStore>, request: &Value, _: &Caller) -> Answer {
    check_tags(request.get("tags"))?;
    let arn = text(request, "resourceArn").unwrap_or_default();
    let added = tag_map(request.get("tags"));
    store.shared.tags.with(arn, |one| one.tags.extend(added)).ok_or_else(|| not_taggable(arn))?;
    Ok(Some(json!({})))
}

pub(super) fn untag(store: &Arc<ImageStore>, request: &Value, _: &Caller) -> Answer {
    let arn = text(request, "resourceArn").unwrap_or_default();
    let removed = request["tagKeys"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let remove = |one: &mut crate::tags::Tagged| removed.for_each(|key| drop(one.tags.remove(key)));
    store.shared.tags.with(arn, remove).ok_or_else(|| not_taggable(arn))?;
    Ok(Some(json!({})))
}
