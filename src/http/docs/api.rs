//! Every handler, once: the list that the document is made of.

use utoipa::OpenApi;

use super::super::{docs, metrics, openai, probes, tgi, toolkit};

/// The described handlers.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "sardine",
        description = "Serves a Qwen3.5 vision-language checkpoint over three contracts: the Hugging Face Inference Toolkit's, \
                       OpenAI's and Text Generation Inference's.",
    ),
    tags(
        (name = "Inference Toolkit", description = "`inputs` and `parameters` in, a list of `generated_text` out."),
        (name = "OpenAI", description = "Chat completions and completions, with the fields that vLLM added."),
        (name = "Text Generation Inference", description = "A raw prompt in, one record or a stream of its tokens out."),
        (name = "Server", description = "How the server is, and what it can do."),
    ),
    paths(
        toolkit::predict,
        openai::chat_completions,
        openai::completions,
        openai::models::list_models,
        openai::models::get_model,
        tgi::generate::generate,
        tgi::generate::generate_stream,
        tgi::tokenize::tokenize,
        tgi::tokenize::chat_tokenize,
        tgi::info::info,
        probes::ready,
        probes::started,
        probes::live,
        metrics::metrics,
        docs::openapi,
        docs::page::page,
        docs::page::file,
    ),
)]
pub(super) struct Api;
