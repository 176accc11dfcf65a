//! The API: the verbs of the command line over HTTP, for tools that show an API key.

use std::sync::Arc;

use moat_admin::{Answer, Call};
use moat_protocol::control::{Fault, Reply, Request};
use serde_json::{Value, json};

use crate::answer;
use crate::daemon::Daemon;
use crate::description::description;
use crate::failure::Failure;
use crate::intake::Intake;
use crate::people::Caller;

/// Answers one call as the command line would be answered, by the rights of the key that it shows.
pub(crate) async fn call(daemon: Arc<Daemon>, intake: Intake, call: Call) -> Answer {
    let Some(key) = call.key else {
        return Answer::problem(401, "show an API key: Authorization: Bearer KEY");
    };
    let request = match request(&call.verb, &call.body) {
        Ok(request) => request,
        Err(answer) => return answer,
    };
    // Updates are for a terminal; a tool waits for the answer.
    let mut nobody = tokio::io::sink();
    let result = answer::on_record(&daemon, &intake, &Caller::Bearer(key), request, &mut nobody).await;
    match result.and_then(|reply| body(&reply)) {
        Ok(body) => Answer { status: 200, body },
        Err(failure) => Answer::problem(status(failure.fault), &failure.message),
    }
}

/// What can be called, for whoever asks: it tells nothing of this box.
pub(crate) fn described() -> Answer {
    match description().and_then(|whole| serde_json::to_vec(&whole).map_err(Failure::internal)) {
        Ok(body) => Answer { status: 200, body },
        Err(failure) => Answer::problem(status(failure.fault), &failure.message),
    }
}

/// A verb with its value, as the command line sends them.
fn request(verb: &str, body: &[u8]) -> Result<Request, Answer> {
    let value = if body.is_empty() {
        Value::Null
    } else {
        // The parser's own message would repeat what was sent.
        serde_json::from_slice(body).map_err(|_| Answer::problem(400, "the body is no JSON"))?
    };
    // Many a tool sends an empty object for nothing.
    let empty = value.as_object().is_some_and(serde_json::Map::is_empty);
    let with = (!value.is_null()).then(|| json!({ "verb": verb, "value": value }));
    let without = (value.is_null() || empty).then(|| json!({ "verb": verb }));
    let found =
        [with, without].into_iter().flatten().find_map(|request| serde_json::from_value(request).ok());
    let unknown =
        "there is no such verb, or its fields are not those that it takes: see /api/v1/openapi.json";
    found.ok_or_else(|| Answer::problem(400, unknown))
}

fn body(reply: &Reply) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(reply).map_err(Failure::internal)
}

const fn status(fault: Fault) -> u16 {
    match fault {
        Fault::Request => 422,
        Fault::Denied => 403,
        Fault::Internal | Fault::Failed => 500,
        Fault::Sealed => 503,
    }
}
