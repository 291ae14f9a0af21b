//! The toolkit's body as the document describes it.

use std::borrow::Cow;

use utoipa::openapi::{RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::http::hf::parameters::ToolkitParameters;
use crate::http::schema::{Message, OneOrMany, Others, Picture, Video, joined};

/// What may be asked, with parameters in `parameters` or beside it.
pub(in crate::http) struct PredictRequest;

impl PartialSchema for PredictRequest {
    fn schema() -> RefOr<Schema> {
        let [shared, ranges] = ToolkitParameters::fields();
        RefOr::T(Schema::Object(joined([Body::schema(), Question::schema(), shared, ranges], Others::Refused)))
    }
}

impl ToSchema for PredictRequest {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Body::schemas(schemas);
        Question::schemas(schemas);
        ToolkitParameters::schemas(schemas);
    }
}

/// A picture as a whole body.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "describes what is read by hand")]
pub(in crate::http) struct PictureFile(Vec<u8>);

/// Pictures as files, and the fields of a JSON body as texts beside them: a question in `inputs`, `question`, `messages` or their
/// like, and parameters.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read by hand")]
pub(in crate::http) struct PictureForm {
    /// Also called `images`, `file` and `files` (or `video`), and several times for several of them.
    #[schema(value_type = String, format = Binary)]
    image: Vec<u8>,
    inputs: Option<String>,
    /// JSON.
    parameters: Option<String>,
}

/// A video as a whole body.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "describes what is read by hand")]
pub(in crate::http) struct VideoFile(Vec<u8>);

/// What to answer: in `inputs`, in `instances`, or beside them in the fields of a question.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read by hand")]
struct Body {
    inputs: Option<Inputs>,
    /// Vertex AI's batch: each is what `inputs` would be, or an object with `inputs` and `parameters`.
    #[schema(value_type = Option<Vec<Value>>, min_items = 1)]
    instances: Option<Vec<serde_json::Value>>,
    parameters: Option<ToolkitParameters>,
    /// Answer with a stream of events.
    stream: Option<bool>,
    /// Any name is accepted: there is one model.
    model: Option<String>,
    /// Without effect.
    #[schema(inline)]
    options: Option<Options>,
}

/// What steered the hosted API's cache and queue.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes what is read by hand")]
struct Options {
    #[schema(value_type = Option<Value>)]
    use_cache: Option<serde_json::Value>,
    #[schema(value_type = Option<Value>)]
    wait_for_model: Option<serde_json::Value>,
}

/// A text (one turn of the user's, or a prompt where it went through the chat template already), a conversation, an object
/// with a question, or a list of any of these.
#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is read by hand")]
enum Inputs {
    Text(String),
    Conversation(Vec<Message>),
    Question(QuestionObject),
    Batch(Vec<Input>),
}

#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is read by hand")]
enum Input {
    Text(String),
    Conversation(Vec<Message>),
    Question(QuestionObject),
}

/// A question with its own parameters beside it.
struct QuestionObject;

impl PartialSchema for QuestionObject {
    fn schema() -> RefOr<Schema> {
        let [shared, ranges] = ToolkitParameters::fields();
        RefOr::T(Schema::Object(joined([Question::schema(), shared, ranges], Others::Refused)))
    }
}

impl ToSchema for QuestionObject {
    fn name() -> Cow<'static, str> {
        "Question".into()
    }

    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        Question::schemas(schemas);
        ToolkitParameters::schemas(schemas);
    }
}

/// A text or a conversation in one of its fields, and pictures and videos in one of theirs, which stand before the text.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes what is read by hand")]
struct Question {
    text: Option<Asked>,
    prompt: Option<Asked>,
    /// With a picture: visual question answering, whose records have `answer` and `score`.
    question: Option<Asked>,
    query: Option<Asked>,
    messages: Option<Asked>,
    msgs: Option<Asked>,
    image: Option<OneOrMany<Picture>>,
    images: Option<OneOrMany<Picture>>,
    image_url: Option<OneOrMany<Picture>>,
    url: Option<OneOrMany<Picture>>,
    image_data: Option<OneOrMany<Picture>>,
    img_uri: Option<OneOrMany<Picture>>,
    video: Option<Video>,
    videos: Option<OneOrMany<Video>>,
    video_url: Option<Video>,
}

#[derive(ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes what is read by hand")]
enum Asked {
    Text(String),
    Messages(Vec<Message>),
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use utoipa::PartialSchema;
    use utoipa::openapi::{RefOr, Schema};

    use super::Question;
    use crate::http::toolkit::inputs;

    #[test]
    fn the_documented_fields_of_a_question_are_those_that_are_read() {
        let RefOr::T(Schema::Object(object)) = Question::schema() else { panic!("a question is an object") };
        let documented: BTreeSet<String> = object.properties.into_keys().collect();
        assert_eq!(documented, inputs::keys().map(str::to_owned).collect());
    }
}
