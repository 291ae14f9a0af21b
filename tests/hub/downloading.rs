//! Downloads that end well, some after trouble on the way.

use std::fs;
use std::path::Path;

use sardine::checkpoint::{Checkpoint, Files};
use sardine::startup::{Phase, Startup};

use crate::hub::{COMMIT, FakeHub, TOKEN, WEIGHTS, assert_whole, content};

#[tokio::test]
async fn a_download_has_the_layout_of_the_hugging_face_cache() {
    let hub = FakeHub::start().await;
    assert_whole(&hub.download().await.unwrap());
    assert_eq!(fs::read_to_string(hub.folder().join("refs/main")).unwrap(), COMMIT);
    for name in ["config.json", "tokenizer.json", WEIGHTS] {
        let link = fs::read_link(hub.folder().join("snapshots").join(COMMIT).join(name)).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(hub.blob(name).file_name().unwrap()), "{name}");
        assert!(!hub.incomplete(name).exists(), "{name}");
    }
}

#[tokio::test]
async fn nothing_but_the_checkpoints_files_is_asked_for() {
    let hub = FakeHub::start().await;
    hub.download().await.unwrap();
    for request in hub.hub.requests() {
        assert!(!request.path.ends_with(".py") && !request.path.ends_with(".md"), "{}", request.path);
    }
    assert_eq!(fs::read_dir(hub.folder().join("blobs")).unwrap().count(), 3);
}

#[tokio::test]
async fn what_describes_the_model_comes_without_its_weights_and_is_no_complete_download() {
    let hub = FakeHub::start().await;
    let (settings, startup) = (hub.settings(), Startup::new());
    let described = Checkpoint::from_hub_with(Files::AllButWeights, "org/name", &settings, &startup).await.unwrap();
    assert_eq!(described.map("config.json").unwrap().to_vec(), content("config.json").unwrap());
    assert!(hub.gets(WEIGHTS).is_empty() && !hub.folder().join("refs/main").exists());
    assert_whole(&hub.download().await.unwrap());
    assert_eq!(hub.gets("tokenizer.json").len(), 1);
}

#[tokio::test]
async fn a_download_tells_how_far_it_is() {
    let hub = FakeHub::start().await;
    let startup = Startup::new();
    Checkpoint::from_hub_with(Files::All, "org/name", &hub.settings(), &startup).await.unwrap();
    let standing = startup.standing();
    let (done, total) = standing.bytes.unwrap();
    assert_eq!((standing.phase, done), (Phase::Downloading, total));
    assert!(total as usize > content(WEIGHTS).unwrap().len(), "{total}");
}

#[tokio::test]
async fn the_token_goes_to_the_hub_and_nowhere_else() {
    let hub = FakeHub::start().await;
    hub.download().await.unwrap();
    let (to_hub, to_storage) = (hub.hub.requests(), hub.storage.requests());
    assert!(!to_hub.is_empty() && !to_storage.is_empty());
    assert!(to_hub.iter().all(|request| request.headers["authorization"] == format!("Bearer {TOKEN}")));
    assert!(to_storage.iter().all(|request| !request.headers.contains_key("authorization")));
    assert!(!format!("{:?}", hub.settings()).contains(TOKEN));
}

#[tokio::test]
async fn a_connection_that_breaks_is_taken_up_where_it_broke() {
    let hub = FakeHub::start().await;
    hub.misbehave(|how| how.cuts = [100_000, 50_000].into());
    assert_whole(&hub.download().await.unwrap());
    let ranges: Vec<Option<String>> = hub.gets(WEIGHTS).iter().map(|get| get.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [None, Some("bytes=100000-".to_owned()), Some("bytes=150000-".to_owned())]);
}

#[tokio::test]
async fn what_an_earlier_process_left_is_not_fetched_again() {
    let hub = FakeHub::start().await;
    hub.leave_part(WEIGHTS, &content(WEIGHTS).unwrap()[..299_000]);
    hub.leave_part("tokenizer.json", &content("tokenizer.json").unwrap());
    assert_whole(&hub.download().await.unwrap());
    let gets = hub.gets(WEIGHTS);
    assert_eq!((gets.len(), gets[0].headers["range"].as_str()), (1, "bytes=299000-"));
    assert!(hub.gets("tokenizer.json").is_empty());
}

#[tokio::test]
async fn a_file_that_changed_meanwhile_is_fetched_from_its_start() {
    let hub = FakeHub::start().await;
    hub.leave_part("tokenizer.json", b"the start of another file");
    hub.misbehave(|how| how.changed = true);
    assert_whole(&hub.download().await.unwrap());
    let gets = hub.gets("tokenizer.json");
    assert!(gets.len() == 1 && gets[0].headers.contains_key("range") && gets[0].headers.contains_key("if-range"));
}

#[tokio::test]
async fn a_part_that_the_rest_does_not_fit_is_thrown_away() {
    let hub = FakeHub::start().await;
    hub.leave_part(WEIGHTS, &[7; 1000]);
    assert_whole(&hub.download().await.unwrap());
    let ranges: Vec<bool> = hub.gets(WEIGHTS).iter().map(|get| get.headers.contains_key("range")).collect();
    assert_eq!(ranges, [true, false]);
}

#[tokio::test]
async fn a_part_that_is_longer_than_the_file_is_thrown_away() {
    let hub = FakeHub::start().await;
    hub.leave_part(WEIGHTS, &vec![7; 400_000]);
    assert_whole(&hub.download().await.unwrap());
}

#[tokio::test]
async fn a_hub_in_trouble_is_asked_again() {
    let hub = FakeHub::start().await;
    hub.misbehave(|how| how.statuses = [503, 429].into());
    assert_whole(&hub.download().await.unwrap());
}

#[tokio::test]
async fn a_second_run_fetches_nothing_again() {
    let hub = FakeHub::start().await;
    hub.download().await.unwrap();
    let before = hub.hub.requests().len();
    assert_whole(&hub.download().await.unwrap());
    // The one request asks whether the revision has moved.
    assert_eq!(hub.hub.requests().len(), before + 1);
}

#[tokio::test]
async fn a_complete_commit_needs_no_network() {
    let hub = FakeHub::start().await;
    hub.download().await.unwrap();
    let before = hub.hub.requests().len();
    let mut settings = hub.settings();
    settings.revision = COMMIT.to_owned();
    assert_whole(&Checkpoint::from_hub("org/name", &settings).await.unwrap());
    assert_eq!(hub.hub.requests().len(), before);
}

#[tokio::test]
async fn the_last_download_serves_when_the_hub_is_gone_or_in_trouble() {
    let hub = FakeHub::start().await;
    hub.download().await.unwrap();
    hub.misbehave(|how| how.statuses = [503].into());
    assert_whole(&hub.download().await.unwrap());
    let settings = hub.settings();
    drop(hub.hub);
    assert_whole(&Checkpoint::from_hub("org/name", &settings).await.unwrap());
}

#[tokio::test]
async fn two_at_once_download_each_file_once() {
    let hub = FakeHub::start().await;
    let (first, second) = tokio::join!(hub.download(), hub.download());
    assert_whole(&first.unwrap());
    assert_whole(&second.unwrap());
    assert_eq!(hub.gets(WEIGHTS).len(), 1);
}
