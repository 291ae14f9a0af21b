//! Puts the parts together: settings -> checkpoint -> memory plan -> chat, media, engine with the model in it -> service.

mod devices;
mod memory;

use std::path::Path;

use tokio::sync::oneshot;

use crate::chat::Chat;
use crate::checkpoint::{Checkpoint, Files};
use crate::engine::{
    Engine, Loader, MemoryPlan, ModelRunner, PictureDemand, PicturePlace, PictureRoom, Wanted, warm_up,
};
use crate::generation::Service;
use crate::http::ServedModel;
use crate::media::{Media, PictureCosts};
use crate::model::{self, Dtype, LoadOptions, PerToken};
use crate::progress::Progress;
use crate::settings::ModelSettings;
use crate::startup::{Phase, Startup};
use devices::Devices;

/// Where the platform mounts the model of an endpoint.
const MOUNTED: &str = "/repository";

/// A service whose model is being loaded.
pub struct Started {
    pub service: Service,
    pub model: ServedModel,
    /// What a token costs the model.
    pub per_token: PerToken,
    /// The outcome of the load.
    pub loaded: oneshot::Receiver<Result<(), String>>,
}

/// Finds the checkpoint and starts everything that answers from it. Errors are one line for the person who deploys.
pub async fn start(settings: &ModelSettings) -> Result<Started, String> {
    start_telling(settings, Startup::new()).await
}

/// [`start`], which tells on `startup` how far it is.
pub async fn start_telling(settings: &ModelSettings, startup: Startup) -> Result<Started, String> {
    let checkpoint = find_checkpoint(settings, Files::All, &startup).await?;
    startup.enter(Phase::Loading);
    let config = model::Config::load(&checkpoint)?;
    let devices = Devices::find(settings)?;
    let plan = plan_for(settings, &devices, &checkpoint, &config)?;
    let per_token = model::per_token(&config, settings.precision(&config));
    tell(&plan);
    let loaders = devices.choices().enumerate().map(|(replica, device)| {
        // The first tells how far all are: they do the same at the same time.
        let told = (replica == 0).then(|| startup.clone());
        let patch_len = config.vision.as_ref().map(|vision| vision.patch_len());
        loader(checkpoint.clone(), settings.load_options(device, &plan), patch_len, told)
    });
    let (engine, loaded) = Engine::start_replicas(settings.engine_limits(&plan), loaders.collect());
    let chat = Chat::load(&checkpoint, settings.special_text())?.with_video_places(settings.video_places());
    let media = Media::start(&checkpoint, settings.media.limits(&plan))?;
    let model = served_model(settings, &checkpoint, &config, &plan);
    let service = Service::new(chat, media, engine.with_memory_plan(plan)).with_startup(startup);
    Ok(Started { service, model, per_token, loaded })
}

/// Loads the model and lets it run for the first time, on a picture whose patches have `patch_len` numbers; says so on `told`.
fn loader(checkpoint: Checkpoint, options: LoadOptions, patch_len: Option<usize>, told: Option<Startup>) -> Loader {
    Box::new(move || {
        let progress = told.as_ref().map(|told| Progress::new("loading weights", told, Phase::Loading));
        let tell = |done, total| progress.iter().for_each(|progress| progress.set(done, total));
        let mut runner = model::load(&checkpoint, &options, &tell)?;
        drop(progress);
        told.iter().for_each(|told| told.enter(Phase::WarmingUp));
        let took = warm_up(&mut runner, patch_len)?;
        tracing::info!(device = %options.device, ms = took.as_millis() as u64, "the model has run for the first time");
        Ok(Box::new(runner) as Box<dyn ModelRunner>)
    })
}

/// What clients are told of the model. Its name is the hub id, the folder, or fry.
fn served_model(
    settings: &ModelSettings,
    checkpoint: &Checkpoint,
    config: &model::Config,
    plan: &MemoryPlan,
) -> ServedModel {
    ServedModel {
        name: settings.model.clone().unwrap_or_else(|| checkpoint.name()),
        pipeline_tag: if config.vision.is_some() { "image-text-to-text" } else { "text-generation" },
        dtype: match settings.dtype.given(config.dtype) {
            Dtype::Bfloat16 => "bfloat16",
            Dtype::Float32 => "float32",
        },
        device: plan.device.clone(),
    }
}

/// What [`start`] would serve within the memory there is. Loads no weights, and downloads none.
pub async fn plan(settings: &ModelSettings) -> Result<MemoryPlan, String> {
    let checkpoint = find_checkpoint(settings, Files::AllButWeights, &Startup::new()).await?;
    plan_for(settings, &Devices::find(settings)?, &checkpoint, &model::Config::load(&checkpoint)?)
}

/// The model that was given, else the mounted one, else the one inside the binary; says which.
async fn find_checkpoint(settings: &ModelSettings, files: Files, startup: &Startup) -> Result<Checkpoint, String> {
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
    Checkpoint::from_hub_with(files, model, &settings.hub_settings(), startup).await
}

/// What each device serves; of unequal ones, what the least of them can.
fn plan_for(
    settings: &ModelSettings,
    devices: &Devices,
    checkpoint: &Checkpoint,
    config: &model::Config,
) -> Result<MemoryPlan, String> {
    let trained_len = config.text.max_position_embeddings;
    let max_model_len = max_model_len(settings.max_model_len, trained_len)?;
    let max_batch_size = settings.engine.max_batch_size as usize;
    let costs_of_pictures = PictureCosts::load(checkpoint)?;
    let largest = model::Largest {
        prefill_chunk: settings.engine.prefill_chunk as usize,
        max_batch_size,
        picture_tokens: costs_of_pictures.largest,
    };
    let costs = model::costs(config, settings.precision(config), largest);
    let available = settings.memory.or_else(|| devices.free_each());
    let (picture_place, of_pictures) = if devices.are_cpu() {
        (PicturePlace::Device, available)
    } else {
        (PicturePlace::Host, memory::available().map(memory::without_reserve))
    };
    let room = picture_demand(settings, costs_of_pictures, max_model_len.unwrap_or(trained_len)).room(of_pictures);
    let pictures = PictureRoom { bytes: settings.media.picture_memory.unwrap_or(room), place: picture_place };
    let picture_cache = match config.vision {
        Some(_) => settings.media.picture_cache.unwrap_or_else(|| usual_picture_cache(available)),
        None => 0,
    };
    let wanted = Wanted { max_batch_size, max_model_len, trained_len, pictures, picture_cache };
    Ok(MemoryPlan::new(&costs, wanted, devices.name(), available))
}

/// Bytes for what is kept of seen pictures, where nobody says: some fifty thousand tokens of a model of four billion weights.
fn usual_picture_cache(available_bytes: Option<u64>) -> u64 {
    const MOST: u64 = 256 << 20;
    available_bytes.map_or(MOST, |available| available / 64).min(MOST)
}

/// The pictures that requests of up to `max_model_len` tokens may bring.
fn picture_demand(settings: &ModelSettings, costs: PictureCosts, max_model_len: usize) -> PictureDemand {
    PictureDemand {
        bytes_per_token: costs.bytes_per_token,
        largest: costs.largest.min(max_model_len),
        tokens_per_request: costs.largest.saturating_mul(settings.media.max_images).min(max_model_len),
        num_requests: settings.engine.max_queue as usize + settings.engine.max_batch_size as usize,
    }
}

/// Tells what will be served, where, and what of the settings does not fit.
fn tell(plan: &MemoryPlan) {
    tracing::info!("computing on {}; the memory:\n{}", plan.device, plan.table());
    plan.clamped().iter().for_each(|clamped| tracing::warn!("{clamped}"));
    if plan.available_bytes.is_none() {
        tracing::warn!(
            "{} does not say how much memory it has: --memory tells, and sequences are fitted to it",
            plan.device
        );
    }
}

fn max_model_len(wanted: Option<u32>, trained: usize) -> Result<Option<usize>, String> {
    match wanted.map(|wanted| wanted as usize) {
        Some(wanted) if wanted > trained => Err(format!(
            "--max-model-len {wanted}: the checkpoint was made for at most {trained} (max_position_embeddings)"
        )),
        wanted => Ok(wanted),
    }
}
