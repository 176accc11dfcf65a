//! The API's description, in OpenAPI 3.1: made of the types that the API speaks and of the table of rights, so that it says
//! nothing else than they do.

use moat_admin::Health;
use moat_protocol::control::{Reply, Request};
use moat_rights::{Act, TABLE};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::failure::Failure;
use crate::people::{Needed, also, needed};

/// Where the description keeps the types that several verbs share.
const SCHEMAS: &str = "#/components/schemas/";

/// What a call may be refused with, besides being done.
const PROBLEMS: [(&str, &str); 6] = [
    ("400", "The body is no JSON, or its fields are not those that the verb takes."),
    ("401", "No API key was shown."),
    ("403", "The key, or whoever it acts for, may not do this."),
    ("422", "What is named is not there, or cannot be done as asked."),
    ("500", "Moat failed, or what was started ended badly."),
    ("503", "The vault is sealed."),
];

/// The replies that a request can be answered with once it was done, by their words.
const fn replies(request: &Request) -> &'static [&'static str] {
    match request {
        Request::Api => &["api"],
        Request::Status | Request::Scan => &["status"],
        Request::Sources | Request::SourcePause { .. } | Request::SourceResume { .. } => &["sources"],
        Request::SourceList { .. } => &["source_listing"],
        Request::SourceTest { .. } | Request::SourceTry { .. } => &["source_trial"],
        Request::SourceFolders { .. } => &["source_folders"],
        Request::SourceRemove { .. } => &["source_removed"],
        Request::SourceFaults { .. } => &["source_faults"],
        Request::Why { .. } => &["why"],
        Request::DatasetBuild { .. } | Request::Dataset { .. } => &["dataset"],
        Request::Datasets => &["datasets"],
        Request::DatasetDiff { .. } => &["dataset_diff"],
        Request::DatasetFacts { .. } => &["dataset_facts"],
        Request::RecordSearch { .. } => &["records"],
        Request::Record { .. } => &["record"],
        Request::Reviews { .. } => &["reviews"],
        Request::Review { .. } => &["reviewed"],
        Request::Tryout { .. } => &["tryout"],
        Request::BaseImport { .. } => &["base"],
        Request::Bases => &["bases"],
        Request::RunStart { .. }
        | Request::Run { .. }
        | Request::RunWatch { .. }
        | Request::RunStop { .. }
        | Request::RunResume { .. } => &["run"],
        Request::RunPreview { .. } | Request::RunPlan { .. } => &["preview"],
        Request::RunCompare { .. } => &["comparison"],
        Request::RunCard { .. } => &["card"],
        Request::RunSample { .. } => &["sample"],
        Request::RunSteps { .. } => &["steps"],
        Request::SweepStart { .. }
        | Request::Sweep { .. }
        | Request::SweepWatch { .. }
        | Request::SweepStop { .. }
        | Request::SweepResume { .. } => &["sweep"],
        Request::Sweeps => &["sweeps"],
        Request::Runs => &["runs"],
        Request::Ask { .. } => &["answer"],
        Request::VaultInit { .. } | Request::VaultSlotAdd { .. } => &["shares"],
        Request::VaultUnseal { .. }
        | Request::VaultSeal
        | Request::VaultSlotRemove { .. }
        | Request::VaultRotate => &["seal"],
        Request::Invite => &["invitation"],
        Request::EnlistConfirm { .. } => &["enlisted"],
        Request::SetUp { .. }
        | Request::Enlist { .. }
        | Request::AccountCreate { .. }
        | Request::AccountReset { .. } => &["made"],
        Request::Accounts | Request::AccountDisable { .. } => &["accounts"],
        Request::Export { .. }
        | Request::AccountRoles { .. }
        | Request::PolicyRequest { .. }
        | Request::SourceAdd { .. }
        | Request::Withdraw { .. } => &["statement"],
        Request::Approve { .. } => &["statement", "exported"],
        Request::Statements => &["statements"],
        Request::ApiKeys | Request::ApiKeyRevoke { .. } => &["api_keys"],
        Request::ApiKeyCreate { .. } => &["api_key"],
        Request::Ledger { .. } => &["ledger"],
        Request::LedgerReceipt { .. } => &["receipt"],
        Request::Backup { .. } => &["backed_up"],
        Request::Shutdown => &["done"],
    }
}

/// The whole description.
pub(crate) fn description() -> Result<Value, Failure> {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let requests = variants(Request::json_schema(&mut generator).to_value(), "verb")?;
    let replies_known = variants(Reply::json_schema(&mut generator).to_value(), "reply")?;
    let health = generator.subschema_for::<Health>().to_value();
    let mut schemas = generator.take_definitions(true);
    for (word, schema) in replies_known {
        schemas.insert(format!("reply.{word}"), schema);
    }
    schemas.insert("problem".to_owned(), problem());
    let mut paths = Map::from_iter([
        ("/api/v1/health".to_owned(), json!({ "get": health_path(&health) })),
        ("/api/v1/openapi.json".to_owned(), json!({ "get": own_path() })),
    ]);
    for (verb, schema) in requests {
        let path = path(&verb, schema, &schemas)?;
        paths.insert(format!("/api/v1/{verb}"), json!({ "post": path }));
    }
    let mut whole = json!({
        "openapi": "3.1.0",
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "info": {
            "title": "Moat",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The verbs of the command line over HTTP, for tools that show an API key. What must be done in person \
                takes the command line or a browser.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/" }],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "key": { "type": "http", "scheme": "bearer", "description": scopes() } },
        },
    });
    plain(&mut whole);
    Ok(whole)
}

/// One verb.
fn path(verb: &str, schema: Value, schemas: &Map<String, Value>) -> Result<Value, Failure> {
    let value = schema.pointer("/properties/value");
    let example = value.map(|value| example(value, schemas));
    let mut asked = json!({ "verb": verb });
    if let Some(example) = &example {
        asked["value"] = example.clone();
    }
    let request: Request = serde_json::from_value(asked).map_err(Failure::internal)?;
    let told =
        |security: &Value, right| operation(verb, &schema, &request, example.as_ref(), security, right);
    Ok(match needed(&request) {
        // For a box without accounts, so that nobody has a key yet.
        Needed::Keeper => told(&json!([]), "keeper"),
        Needed::Invitation => told(&json!([]), "invitation"),
        // Whoever holds any key may see what runs.
        Needed::Nothing => told(&json!([{ "key": [Act::StatusRead.word()] }]), Act::StatusRead.word()),
        Needed::Act(act) => match TABLE.iter().any(|row| row.act == act && row.in_person) {
            true => told(&json!([]), act.word()),
            false => {
                let scopes: Vec<_> = std::iter::once(act).chain(also(&request)).map(Act::word).collect();
                told(&json!([{ "key": scopes }]), act.word())
            }
        },
    })
}

fn operation(
    verb: &str,
    schema: &Value,
    request: &Request,
    example: Option<&Value>,
    security: &Value,
    right: &str,
) -> Value {
    let told = schema["description"].as_str().unwrap_or_default();
    let answers: Vec<_> =
        replies(request).iter().map(|word| json!({ "$ref": format!("{SCHEMAS}reply.{word}") })).collect();
    let mut responses = Map::new();
    responses.insert(
        "200".to_owned(),
        json!({ "description": "It was done.", "content": { "application/json": { "schema": { "oneOf": answers } } } }),
    );
    for (status, meaning) in PROBLEMS {
        let content =
            json!({ "application/problem+json": { "schema": { "$ref": format!("{SCHEMAS}problem") } } });
        responses.insert(status.to_owned(), json!({ "description": meaning, "content": content }));
    }
    let row = TABLE.iter().find(|row| row.word == right);
    let mut operation = json!({
        "operationId": verb,
        "summary": told.split_inclusive(". ").next().unwrap_or_default().trim_end_matches(". ").trim_end_matches('.'),
        "description": told,
        "security": security,
        "x-moat-right": right,
        "x-moat-in-person": security.as_array().is_some_and(Vec::is_empty),
        "x-moat-roles": row.map(|row| row.roles.iter().map(|role| role.word()).collect::<Vec<_>>()),
        "responses": responses,
    });
    if let Some(value) = schema.pointer("/properties/value") {
        let content = json!({ "application/json": { "schema": value, "example": example } });
        operation["requestBody"] = json!({ "required": true, "content": content });
    }
    operation
}

fn health_path(health: &Value) -> Value {
    let answer = |meaning: &str| json!({ "description": meaning, "content": { "application/json": { "schema": health } } });
    json!({
        "operationId": "health",
        "summary": "How the box stands, for whatever watches machines",
        "security": [],
        "responses": {
            "200": answer("Nothing waits for a person, and no way out is open."),
            "503": answer("It is sealed, something waits for a person, or a way out is open."),
        },
    })
}

fn own_path() -> Value {
    let content = json!({ "application/json": { "schema": { "type": "object" } } });
    json!({
        "operationId": "description",
        "summary": "This description",
        "security": [],
        "responses": { "200": { "description": "OpenAPI 3.1.", "content": content } },
    })
}

/// RFC 9457, section 3.1: where no type is told it is `about:blank`, and the title the status's own.
fn problem() -> Value {
    json!({
        "type": "object",
        "description": "Why a call was not done (RFC 9457).",
        "required": ["title", "status", "detail"],
        "properties": {
            "title": { "type": "string", "description": "The status in words." },
            "status": { "type": "integer", "minimum": 400, "maximum": 599 },
            "detail": { "type": "string", "description": "What happened, where, and what to do." },
        },
    })
}

/// What a key can be for, in words.
fn scopes() -> String {
    let rows = TABLE.iter().filter(|row| !row.in_person);
    let list: Vec<_> = rows.map(|row| format!("- `{}`: {}", row.word, row.meaning)).collect();
    format!("An API key of `moat key create`. Its scope is some of:\n\n{}", list.join("\n"))
}

/// The variants of a type that says by a word which one it is.
fn variants(mut schema: Value, tag: &str) -> Result<Vec<(String, Value)>, Failure> {
    let Some(Value::Array(all)) = schema.get_mut("oneOf").map(Value::take) else {
        return Err(Failure::internal("the API's types are not described as expected"));
    };
    let word = |variant: &Value| Some(variant["properties"][tag]["const"].as_str()?.to_owned());
    let named = all.into_iter().map(|variant| word(&variant).map(|word| (word, variant)));
    named.collect::<Option<_>>().ok_or_else(|| Failure::internal("a variant of the API's types has no word"))
}

/// The least that a schema takes. It stands for a verb's value where only the verb matters.
fn example(schema: &Value, schemas: &Map<String, Value>) -> Value {
    if let Some(named) = schema["$ref"].as_str().and_then(|path| schemas.get(path.strip_prefix(SCHEMAS)?)) {
        return example(named, schemas);
    }
    for given in [&schema["const"], &schema["default"], &schema["enum"][0]] {
        if !given.is_null() {
            return given.clone();
        }
    }
    for choice in ["oneOf", "anyOf", "allOf"] {
        if let Some(first) = schema[choice].as_array().and_then(|all| all.first()) {
            return example(first, schemas);
        }
    }
    match schema["type"].as_str() {
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let field = |name: &str| (name.to_owned(), example(&schema["properties"][name], schemas));
            Value::Object(required.map(field).collect())
        }
        Some("array") => json!([]),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(false),
        Some("string") if schema["pattern"].is_string() => json!("0".repeat(64)),
        Some("string") => json!("x"),
        _ => Value::Null,
    }
}

/// Takes the links of the source's comments out of every description: what they lead to is not there.
fn plain(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == "description" || name == "summary" => {
                        *text = text.replace("[`", "`").replace("`]", "`");
                    }
                    other => plain(other),
                }
            }
        }
        Value::Array(all) => all.iter_mut().for_each(plain),
        _ => {}
    }
}
