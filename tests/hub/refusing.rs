//! Downloads that must not end well, and what they say.

use std::fs;

use sardine::checkpoint::Checkpoint;

use crate::hub::{COMMIT, FakeHub, TOKEN, WEIGHTS, is_empty};

async fn refusal(hub: &FakeHub) -> String {
    let message = hub.download().await.expect_err("the download should fail");
    assert!(!message.contains('\n') && !message.contains(TOKEN), "{message}");
    message
}

#[tokio::test]
async fn a_file_whose_checksum_differs_is_not_put_in_place() {
    let hub = FakeHub::start().await;
    hub.misbehave(|how| how.corrupt = true);
    let message = refusal(&hub).await;
    assert!(message.contains(WEIGHTS) && message.contains("sha256"), "{message}");
    assert!(!hub.blob(WEIGHTS).exists() && !hub.incomplete(WEIGHTS).exists());
    assert!(!hub.folder().join("snapshots").join(COMMIT).join(WEIGHTS).exists());
    assert!(!hub.folder().join("refs/main").exists());
}

#[tokio::test]
async fn a_refused_token_says_what_to_set() {
    for status in [401, 403] {
        let hub = FakeHub::start().await;
        hub.misbehave(|how| how.statuses = [status].into());
        let message = refusal(&hub).await;
        assert!(message.contains("HF_TOKEN") && message.contains("gated") && message.contains("org/name"), "{message}");
        assert_eq!(hub.hub.requests().len(), 1, "a refusal is not tried again");
    }
}

#[tokio::test]
async fn an_unknown_id_or_revision_says_so() {
    let hub = FakeHub::start().await;
    let mut settings = hub.settings();
    settings.revision = "no-such-branch".to_owned();
    let message = Checkpoint::from_hub("org/name", &settings).await.unwrap_err();
    assert!(message.contains("404") && message.contains("org/name@no-such-branch"), "{message}");
    let message = Checkpoint::from_hub("org/other", &hub.settings()).await.unwrap_err();
    assert!(message.contains("404") && message.contains("org/other@main"), "{message}");
}

#[tokio::test]
async fn a_hub_that_cannot_be_reached_is_named() {
    let hub = FakeHub::start().await;
    let settings = hub.settings();
    drop(hub.hub);
    let message = Checkpoint::from_hub("org/name", &settings).await.unwrap_err();
    assert!(message.contains("127.0.0.1") && message.contains("failed"), "{message}");
}

#[tokio::test]
async fn a_download_that_stays_broken_ends_and_keeps_its_part() {
    let hub = FakeHub::start().await;
    hub.misbehave(|how| how.cuts = [100_000].into_iter().chain(std::iter::repeat_n(0, 20)).collect());
    let message = refusal(&hub).await;
    assert!(message.contains("connection"), "{message}");
    assert_eq!(fs::metadata(hub.incomplete(WEIGHTS)).unwrap().len(), 100_000);
}

#[tokio::test]
async fn a_file_name_that_leads_out_of_the_cache_is_refused() {
    for name in ["../../../escaped.json", "/tmp/config.json", "..\\config.json"] {
        let hub = FakeHub::start().await;
        hub.misbehave(|how| how.extra_file = Some(name.to_owned()));
        let message = refusal(&hub).await;
        assert!(message.contains("out of the cache"), "{message}");
        assert!(is_empty(hub.cache.path()));
    }
}

#[tokio::test]
async fn an_etag_that_leads_out_of_the_cache_is_refused() {
    for etag in ["../../../escaped", "..", ""] {
        let hub = FakeHub::start().await;
        hub.misbehave(|how| how.etag = Some(etag.to_owned()));
        let message = refusal(&hub).await;
        assert!(message.contains("ETag"), "{etag}: {message}");
    }
}

#[tokio::test]
async fn an_id_that_is_no_name_is_refused_before_anything_is_asked() {
    let hub = FakeHub::start().await;
    for id in ["name", "org/name/more", "../org", "org/..", "org/na me", "http://hub/org"] {
        let message = Checkpoint::from_hub(id, &hub.settings()).await.unwrap_err();
        assert!(message.contains("org/name") && message.contains(id), "{message}");
    }
    let mut settings = hub.settings();
    settings.revision = "../../escaped".to_owned();
    assert!(Checkpoint::from_hub("org/name", &settings).await.is_err());
    assert!(hub.hub.requests().is_empty());
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_names_its_path() {
    let hub = FakeHub::start().await;
    let mut settings = hub.settings();
    settings.cache = hub.cache.path().join("a file");
    fs::write(&settings.cache, "").unwrap();
    let message = Checkpoint::from_hub("org/name", &settings).await.unwrap_err();
    assert!(message.contains("a file"), "{message}");
}

#[tokio::test]
async fn an_endpoint_that_is_no_url_is_refused() {
    let hub = FakeHub::start().await;
    let mut settings = hub.settings();
    settings.endpoint = "hub.example".to_owned();
    let message = Checkpoint::from_hub("org/name", &settings).await.unwrap_err();
    assert!(message.contains("HF_ENDPOINT"), "{message}");
}
