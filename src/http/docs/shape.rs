//! What the document's types cannot say, said in its JSON.

use serde_json::{Map, Value, json};

/// Alternatives of which the first that fits is read need not exclude one another: `oneOf` would forbid what several fit.
pub(super) fn first_that_fits(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(first_that_fits),
        Value::Object(object) => {
            if let Some(alternatives) = object.shift_remove("oneOf") {
                object.insert("anyOf".to_owned(), alternatives);
            }
            object.values_mut().for_each(first_that_fits);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// In OpenAPI 3.1 an event stream is described by one of its events, whose data is a text: here the JSON of what was described,
/// or of what a failed request is answered; on OpenAI's routes also the mark of the end.
pub(super) fn describe_events(document: &mut Value) {
    let operations = members(&mut document["paths"]).flat_map(|item| item.as_object_mut().into_iter().flatten());
    for (_, operation) in operations {
        let is_openai = operation["tags"][0] == "OpenAI";
        let failure = operation["responses"]["503"]["content"]["application/json"]["schema"].clone();
        let Some(schema) = operation.pointer_mut("/responses/200/content/text~1event-stream/schema") else { continue };
        let event = schema.take();
        let mut data = vec![json!({
            "type": "string",
            "contentMediaType": "application/json",
            "contentSchema": { "anyOf": [event, failure] },
        })];
        if is_openai {
            data.push(json!({ "const": "[DONE]" }));
        }
        *schema = json!({ "type": "object", "required": ["data"], "properties": { "data": { "anyOf": data } } });
    }
}

fn members(value: &mut Value) -> impl Iterator<Item = &mut Value> {
    value.as_object_mut().map(Map::values_mut).into_iter().flatten()
}
