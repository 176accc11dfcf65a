use moat_catalog::{ApiKeyRow, Catalog};
use moat_contracts::Completion;
use moat_protocol::control::{ApiKey, Reply, Secret};
use moat_rights::{Act, Scope, hex, may};

use super::accounts::not_set_up;
use crate::daemon::{Daemon, now};
use crate::failure::Failure;
use crate::people::{self, Person};

const DAY: i64 = 24 * 3600;
/// Days that a key counts at most.
const LONGEST: u32 = 366;

/// All keys.
pub(crate) fn list(daemon: &Daemon) -> Result<Reply, Failure> {
    let catalog = daemon.state.catalog()?;
    let keys = catalog.api_keys()?;
    Ok(Reply::ApiKeys(keys.iter().map(|key| shown(daemon, &catalog, key)).collect::<Result<_, _>>()?))
}

fn shown(daemon: &Daemon, catalog: &Catalog, key: &ApiKeyRow) -> Result<ApiKey, Failure> {
    let owner = catalog.accounts()?.into_iter().find(|account| account.id == key.owner);
    let scope: Scope = key.scope.parse().map_err(Failure::internal)?;
    Ok(ApiKey {
        id: hex(&key.hash[..8]),
        name: key.name.clone(),
        owner: owner.map_or_else(|| key.owner.clone(), |owner| owner.name),
        scope: scope.iter().map(|act| act.word().to_owned()).collect(),
        created: key.created,
        expires: key.expires,
        revoked: key.revoked,
        served: catalog.served(&key.hash, now() / DAY)?,
        cap: if scope.has(Act::ModelAsk) { smallest_cap(daemon)? } else { None },
    })
}

/// Makes a key that may do at most what its owner may, at each moment.
pub(crate) fn create(
    daemon: &Daemon,
    person: &Person,
    name: String,
    acts: &[String],
    days: u32,
) -> Result<Reply, Failure> {
    let owner = person.account().ok_or_else(not_set_up)?;
    let roles = people::roles(owner)?;
    let acts = acts.iter().map(|act| act.parse::<Act>()).collect::<Result<Vec<_>, _>>();
    let acts = acts.map_err(Failure::request)?;
    let scope = Scope::of(&acts);
    for act in &acts {
        if !scope.has(*act) {
            return Err(Failure::request(format!("`{}` is only for people: no key can do it", act.word())));
        }
        if !may(roles, *act) {
            return Err(Failure::denied(format!(
                "account {} may not do `{}` itself",
                owner.name,
                act.word()
            )));
        }
    }
    if acts.is_empty() || days == 0 || days > LONGEST {
        return Err(Failure::request(format!(
            "a key is for one act at least, and counts 1 to {LONGEST} days"
        )));
    }
    let sound = |letter: char| letter.is_ascii_alphanumeric() || "-_. ".contains(letter);
    if name.is_empty() || name.len() > 64 || !name.chars().all(sound) {
        return Err(Failure::request(
            "a key's name has at most 64 letters, digits, spaces, `-`, `_` and `.`",
        ));
    }
    let key = moat_rights::ApiKey::generate().map_err(Failure::internal)?;
    let row = ApiKeyRow {
        hash: key.hash,
        name,
        owner: owner.id.clone(),
        scope: scope.to_string(),
        created: now(),
        expires: now() + i64::from(days) * DAY,
        revoked: None,
    };
    let catalog = daemon.state.catalog()?;
    let batch = catalog.write()?;
    batch.add_api_key(&row)?;
    batch.commit()?;
    Ok(Reply::ApiKey(Secret(key.text.to_string())))
}

/// Revokes a key for good. Whoever may revoke at all may revoke every key: a leaked one must not wait for its owner.
pub(crate) fn revoke(daemon: &Daemon, id: &str) -> Result<Reply, Failure> {
    let catalog = daemon.state.catalog()?;
    let mut keys = catalog.api_keys()?;
    keys.retain(|key| id.len() >= 4 && hex(&key.hash[..8]).starts_with(id));
    let (Some(mut key), true) = (keys.pop(), keys.is_empty()) else {
        return Err(Failure::request("no key, or several, begin so: `moat key list` shows their ids"));
    };
    if key.revoked.is_none() {
        key.revoked = Some(now());
        let batch = catalog.write()?;
        batch.revoke_api_key(&key.hash, now())?;
        batch.commit()?;
    }
    Ok(Reply::ApiKeys(vec![shown(daemon, &catalog, &key)?]))
}

/// Bytes of completions that a key may be served a day by a model of so many bytes of weights: too few to carry the
/// weights away in what they say.
fn cap(daemon: &Daemon, weights: u64) -> u64 {
    // Exact for every weight below eight petabytes, and a cap needs no more.
    (weights as f64 * daemon.settings.boundary.completions_share) as u64
}

/// The cap that the smallest base brings.
fn smallest_cap(daemon: &Daemon) -> Result<Option<u64>, Failure> {
    let bases = moat_models::list(&daemon.state.bases()).map_err(Failure::internal)?;
    Ok(bases.iter().map(|base| cap(daemon, base.bytes)).min())
}

/// Counts completions before they are given to the bearer of a key; refuses them beyond the day's cap.
pub(crate) fn count(
    daemon: &Daemon,
    key: &ApiKeyRow,
    completions: &[Completion],
    weights: u64,
) -> Result<(), Failure> {
    // All that is served counts: probabilities tell more of the weights than words do.
    let bytes = serde_json::to_vec(completions).map_err(Failure::internal)?.len() as u64;
    let (most, day) = (cap(daemon, weights), now() / DAY);
    let catalog = daemon.state.catalog()?;
    let batch = catalog.write()?;
    let served = batch.serve(&key.hash, day, bytes)?;
    if served > most {
        // Dropping the batch leaves the count as it was.
        return Err(Failure::denied(format!(
            "this key was served {} of {most} bytes of completions today (UTC), and this answer would be {bytes} \
             more: ask tomorrow, or raise boundary.completions_share",
            served - bytes
        )));
    }
    Ok(batch.commit()?)
}
