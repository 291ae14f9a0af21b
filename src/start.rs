//! Puts the parts together: settings -> checkpoint -> chat, media, engine with the model in it -> service.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::chat::Chat;
use crate::checkpoint::Checkpoint;
use crate::engine::{Engine, ModelRunner};
use crate::generation::Service;
use crate::http::ServedModel;
use crate::media::Media;
use crate::model::{self, Dtype, DtypeChoice};
use crate::progress::Progress;
use crate::settings::ModelSettings;

/// Where the platform mounts the model of an endpoint.
const MOUNTED: &str = "/repository";
/// The longest context that is offered unasked: more than most requests need, and little enough for a laptop's memory.
const DEFAULT_MAX_MODEL_LEN: usize = 32_768;

/// A service whose model is being loaded.
pub struct Started {
    pub service: Service,
    pub model: ServedModel,
    /// The outcome of the load.
    pub loaded: oneshot::Receiver<Result<(), String>>,
}

/// Finds the checkpoint and starts everything that answers from it. Errors are one line for the person who deploys.
pub async fn start(settings: &ModelSettings) -> Result<Started, String> {
    let checkpoint = find_checkpoint(settings).await?;
    let config = model::Config::load(&checkpoint)?;
    let max_model_len = max_model_len(settings.max_model_len, config.text.max_position_embeddings)?;
    let limits = settings.engine_limits(max_model_len);
    let (options, weights) = (settings.load_options(), checkpoint.clone());
    let served = served_model(settings, &checkpoint, &config);
    let device = served.device.clone();
    let (engine, loaded) = Engine::start(limits, move || {
        let progress = Progress::new("loading weights");
        let runner = model::load(&weights, &options, &|done, total| progress.set(done, total))?;
        _ = device.set(runner.device_name());
        Ok(Box::new(runner) as Box<dyn ModelRunner>)
    });
    let chat = Chat::load(&checkpoint, settings.special_text())?;
    let media = Media::start(&checkpoint, settings.media.limits(max_model_len))?;
    Ok(Started { service: Service::new(chat, media, engine), model: served, loaded })
}

/// What clients are told of the model. Its name is the hub id, the folder, or fry.
fn served_model(settings: &ModelSettings, checkpoint: &Checkpoint, config: &model::Config) -> ServedModel {
    let dtype = match settings.dtype {
        DtypeChoice::Auto => config.dtype,
        DtypeChoice::Exactly(dtype) => dtype,
    };
    ServedModel {
        name: settings.model.clone().unwrap_or_else(|| checkpoint.name()),
        pipeline_tag: if config.vision.is_some() { "image-text-to-text" } else { "text-generation" },
        dtype: match dtype {
            Dtype::Bfloat16 => "bfloat16",
            Dtype::Float32 => "float32",
        },
        device: Arc::default(),
    }
}

/// The model that was given, else the mounted one, else the one inside the binary; says which.
async fn find_checkpoint(settings: &ModelSettings) -> Result<Checkpoint, String> {
    let Some(model) = &settings.model else {
        if let Ok(mounted) = Checkpoint::in_folder(Path::new(MOUNTED)) {
            tracing::info!("serving the checkpoint in {MOUNTED}");
            return Ok(mounted);
        }
        tracing::info!(
            "no --model was given and {MOUNTED} holds no checkpoint: serving fry, the miniature inside the binary"
        );
        return Ok(Checkpoint::Embedded);
    };
    let folder = Path::new(model);
    if folder.exists() || folder.is_absolute() || model.starts_with('.') {
        tracing::info!("serving the checkpoint in {model}");
        return Checkpoint::in_folder(folder);
    }
    tracing::info!("serving {model} from the hub, revision {}", settings.revision);
    Checkpoint::from_hub(model, &settings.hub_settings()).await
}

fn max_model_len(wanted: Option<u32>, trained: usize) -> Result<usize, String> {
    match wanted.map(|wanted| wanted as usize) {
        Some(wanted) if wanted > trained => Err(format!(
            "--max-model-len {wanted}: the checkpoint was made for at most {trained} (max_position_embeddings)"
        )),
        Some(wanted) => Ok(wanted),
        None => Ok(trained.min(DEFAULT_MAX_MODEL_LEN)),
    }
}
