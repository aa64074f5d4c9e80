//! ARNs of secrets. Their six last characters follow from account, region and name, while AWS chooses them at random.

use crate::caller::Caller;
use crate::partition::partition;

const LETTERS: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// The hyphen and the characters at the end of an ARN.
const SUFFIX: usize = 7;

/// The ARN of the secret that an id names: a name, an ARN, or an ARN without its last characters.
pub(crate) fn secret_arn(id: &str, caller: &Caller) -> String {
    let of_name = |place: &str, name: &str| format!("{place}{name}-{}", suffix(place, name));
    let Some(at) = id.find(":secret:").filter(|_| id.starts_with("arn:")) else {
        let partition = partition(&caller.region);
        let place = format!("arn:{partition}:secretsmanager:{}:{}:secret:", caller.region, caller.account);
        return of_name(&place, id);
    };
    let (place, name) = id.split_at(at + ":secret:".len());
    match name.len().checked_sub(SUFFIX).and_then(|end| name.get(..end)) {
        Some(start) if of_name(place, start) == id => id.to_owned(),
        _ => of_name(place, name),
    }
}

fn suffix(place: &str, name: &str) -> String {
    let hash = blake3::hash(format!("{place}{name}").as_bytes());
    hash.as_bytes()
        .iter()
        .take(SUFFIX - 1)
        .map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]))
        .collect()
}
