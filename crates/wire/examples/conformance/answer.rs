//! `{schema, op, input}` to `{ok, value}` or `{ok: false, error: {type, message}}`.

use farthing_wire::Object;
use farthing_wire::json::{self, Json, Limits};
use farthing_wire::mpp::{
    Challenge, ChallengeSecret, ChallengeSecrets, Credential, MppError, Receipt, encoding,
};

const LIMITS: Limits = Limits { bytes: 1024 * 1024, values: 1 << 16, members: 1024 };
const MAX_TEXT_BYTES: usize = 512 * 1024;

/// What the operation made of its input: a value, or what went wrong.
type Outcome = Result<Object, String>;

/// Its name, the kind of error that it may end in, and what it does.
type Operation = (&'static str, &'static str, fn(Object) -> Outcome);

const OPERATIONS: &[Operation] = &[
    ("challenge.parse", "parse_error", challenge_parse),
    ("challenge.format", "format_error", challenge_format),
    ("credential.parse", "parse_error", credential_parse),
    ("credential.format", "format_error", credential_format),
    ("receipt.parse", "parse_error", receipt_parse),
    ("receipt.format", "format_error", receipt_format),
    ("base64url.encode", "encoding_error", base64url_encode),
    ("base64url.decode", "encoding_error", base64url_decode),
    ("challenge.id", "generation_error", challenge_id),
];

pub fn answer(request: &[u8]) -> Object {
    let request = match json::parse(request, LIMITS) {
        Ok(Json::Object(request)) => request,
        Ok(_) => return failed("unknown_error", "the request is not an object"),
        Err(error) => return failed("unknown_error", &error.to_string()),
    };
    if request.get("schema").and_then(Json::as_u64) != Some(1) {
        return failed("unknown_error", "the schema is not 1");
    }
    let name = request.get_str("op").unwrap_or_default();
    let Some((_, kind, operation)) = OPERATIONS.iter().find(|(known, _, _)| *known == name) else {
        return failed("unsupported_operation", "no operation of this name");
    };
    match request.get("input") {
        Some(Json::Object(input)) => match operation(input.clone()) {
            Ok(value) => Object::new().with("ok", true).with("value", value),
            Err(message) => failed(kind, &message),
        },
        _ => failed(kind, "the input is not an object"),
    }
}

fn failed(kind: &str, message: &str) -> Object {
    Object::new().with("ok", false).with("error", Object::new().with("type", kind).with("message", message))
}

fn challenge_parse(input: Object) -> Outcome {
    told(Challenge::parse(text(&input, "header")?.as_bytes()).map(|challenge| challenge.to_native()))
}

fn challenge_format(input: Object) -> Outcome {
    told(Challenge::from_json(input.into()).and_then(|challenge| challenge.to_header()).map(header))
}

fn credential_parse(input: Object) -> Outcome {
    told(Credential::parse(text(&input, "header")?.as_bytes()).map(|credential| credential.to_native()))
}

fn credential_format(input: Object) -> Outcome {
    told(Credential::from_json(input.into()).and_then(|credential| credential.to_header()).map(header))
}

fn receipt_parse(input: Object) -> Outcome {
    told(Receipt::parse(text(&input, "header")?.as_bytes()).map(|receipt| receipt.to_object()))
}

fn receipt_format(input: Object) -> Outcome {
    told(Receipt::from_json(input.into()).map(|receipt| header(receipt.to_header())))
}

fn base64url_encode(input: Object) -> Outcome {
    Ok(Object::new().with("text", encoding::encode(text(&input, "text")?)))
}

fn base64url_decode(input: Object) -> Outcome {
    let bytes = told(encoding::decode(text(&input, "text")?.as_bytes(), MAX_TEXT_BYTES, "text"))?;
    let text = String::from_utf8(bytes).map_err(|error| error.to_string())?;
    Ok(Object::new().with("text", text))
}

fn challenge_id(mut input: Object) -> Outcome {
    let secret =
        ChallengeSecret::new(text(&input, "secretKey")?.as_bytes()).map_err(|error| error.to_string())?;
    input.insert("id", "to be computed");
    let id = Challenge::from_json(input.into()).and_then(|one| ChallengeSecrets::new(secret).id(&one));
    told(id.map(|id| Object::new().with("id", id)))
}

fn header(value: String) -> Object {
    Object::new().with("header", value)
}

fn text<'a>(input: &'a Object, field: &str) -> Result<&'a str, String> {
    input.get_str(field).ok_or_else(|| format!("{field} is missing"))
}

fn told<T>(result: Result<T, MppError>) -> Result<T, String> {
    result.map_err(|error| format!("{}: {error}", error.code()))
}
