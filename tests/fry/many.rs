//! Many clients at once: each gets what it would get alone, however the others ask, stream or hang up.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;

use crate::samples::{Sample, samples};
use crate::server::Server;

const CLIENTS: usize = 16;
const REQUESTS_EACH: usize = 4;

/// What a sample is answered alone, in two contracts.
struct Alone {
    sample: Sample,
    text: String,
    chat: Value,
}

/// How a client asks.
#[derive(Debug, Clone, Copy)]
enum Way {
    Whole,
    Streamed,
    ChatWhole,
    ChatStreamed,
    HangUp(Duration),
}

/// A small generator: the same requests in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n
    }

    fn way(&mut self) -> Way {
        match self.below(6) {
            0 => Way::Whole,
            1 => Way::Streamed,
            2 => Way::ChatWhole,
            3 => Way::ChatStreamed,
            _ => Way::HangUp(Duration::from_millis(self.below(400) as u64)),
        }
    }
}

#[tokio::test]
async fn sixteen_clients_get_what_each_would_get_alone() {
    let server = Server::start(&["--dtype", "float32", "--max-batch-size", "8", "--max-queue", "64"]).await;
    let mut alone = Vec::new();
    for sample in samples() {
        let text = server.answer(sample.request()).await;
        let chat = server.chat(sample.chat_request()).await;
        alone.push(Alone { sample, text, chat });
    }
    let clients = (0..CLIENTS).map(|number| client(&server, &alone, Random(number as u64)));
    let num_answers: usize = join_all(clients).await.into_iter().sum();
    assert!(num_answers > CLIENTS * REQUESTS_EACH / 2, "only {num_answers} requests were not given up");
    is_idle(&server).await;
}

/// Asks one request after another; the number of those that were waited for.
async fn client(server: &Server, alone: &[Alone], mut random: Random) -> usize {
    let mut num_answers = 0;
    for _ in 0..REQUESTS_EACH {
        let Alone { sample, text, chat } = &alone[random.below(alone.len())];
        let way = random.way();
        match way {
            Way::Whole => assert_eq!(server.answer(sample.request()).await, *text, "{} {way:?}", sample.name),
            Way::Streamed => {
                assert_eq!(server.streamed_answer(sample.request()).await, *text, "{} {way:?}", sample.name)
            }
            Way::ChatWhole => assert_eq!(server.chat(sample.chat_request()).await, *chat, "{} {way:?}", sample.name),
            Way::ChatStreamed => {
                assert_eq!(server.streamed_chat(sample.chat_request()).await, *chat, "{} {way:?}", sample.name);
            }
            Way::HangUp(patience) => server.give_up(sample.request(), patience).await,
        }
        num_answers += usize::from(!matches!(way, Way::HangUp(_)));
    }
    num_answers
}

/// Everything that was taken is given back: no sequence runs or waits.
async fn is_idle(server: &Server) {
    let mut metrics = String::new();
    for _ in 0..100 {
        metrics = server.get("metrics").await;
        if metrics.contains("inf_batch_current_size 0") && metrics.contains("inf_queue_size 0") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the server is not idle: {metrics}");
}
