//! The bodies of requests as the document describes them: the fields of a route and those of both, in one object.

use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use super::request::{ChatFields, CompletionFields, GenerationFields};
use crate::http::schema::{Others, joined};

/// Fields that nobody reads are named in the header `x-ignored-fields` of the reply.
pub(in crate::http) struct ChatCompletionRequest;

pub(in crate::http) struct CompletionRequest;

impl PartialSchema for ChatCompletionRequest {
    fn schema() -> RefOr<Schema> {
        RefOr::T(Schema::Object(joined([ChatFields::schema(), GenerationFields::schema()], Others::Ignored)))
    }
}

impl ToSchema for ChatCompletionRequest {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        ChatFields::schemas(schemas);
        GenerationFields::schemas(schemas);
    }
}

impl PartialSchema for CompletionRequest {
    fn schema() -> RefOr<Schema> {
        RefOr::T(Schema::Object(joined([CompletionFields::schema(), GenerationFields::schema()], Others::Ignored)))
    }
}

impl ToSchema for CompletionRequest {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        CompletionFields::schemas(schemas);
        GenerationFields::schemas(schemas);
    }
}
