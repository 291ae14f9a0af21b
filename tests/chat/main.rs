//! Prompts and texts are, token by token, what Transformers makes of the same conversations.

mod client_text;
mod fixtures;
mod loading;

use std::sync::Arc;

use fixtures::{Fixtures, fry, real};
use sardine::chat::{Chat, SpecialText, VideoPlaces};
use sardine::engine::{Clip, Grid, Picture, Visuals};
use sardine::error::Error;
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// `found` as a fixture holds it: itself, or the digest of its JSON.
fn matches(found: &impl Serialize, expected: &Value) -> bool {
    let found = json!(found);
    let digest: String = Sha256::digest(found.to_string()).iter().map(|byte| format!("{byte:02x}")).collect();
    found == *expected || json!(digest) == *expected
}

fn checkpoints(special_text: SpecialText) -> impl Iterator<Item = (Chat, Fixtures)> {
    [Some(fry(special_text)), real(special_text)].into_iter().flatten()
}

#[test]
fn conversations_render_as_in_transformers_and_are_refused_in_its_words() {
    for (chat, fixtures) in checkpoints(SpecialText::StaysText) {
        for case in fixtures.rendered {
            match (chat.render(&case.conversation.conversation()), case.text) {
                (Ok(text), Some(expected)) => assert!(matches(&text, &json!(expected)), "{}: {text}", case.name),
                (Err(Error::Invalid { message, .. }), None) => {
                    let same = case.error.is_none_or(|error| matches(&message, &json!(error)));
                    assert!(same, "{}: {message}", case.name);
                }
                (found, expected) => panic!("{}: {found:?}, expected {expected:?}", case.name),
            }
        }
    }
}

#[test]
fn prompts_have_the_token_ids_of_transformers() {
    for (chat, fixtures) in checkpoints(SpecialText::BecomesToken) {
        for case in fixtures.rendered {
            let Some(expected) = case.ids else { continue };
            let prompt = chat.prompt(&case.conversation.conversation(), &Visuals::default(), None).unwrap().prompt;
            assert!(matches(&prompt.ids, &expected), "{}: {:?}", case.name, prompt.ids);
        }
    }
}

#[test]
fn protecting_a_clients_text_changes_no_ordinary_prompt() {
    for (chat, fixtures) in checkpoints(SpecialText::StaysText) {
        for case in fixtures.rendered.into_iter().filter(|case| case.name != "special_text") {
            let Some(expected) = case.ids else { continue };
            let prompt = chat.prompt(&case.conversation.conversation(), &Visuals::default(), None).unwrap().prompt;
            assert!(matches(&prompt.ids, &expected), "{}: {:?}", case.name, prompt.ids);
        }
    }
}

#[test]
fn pictures_get_their_tokens_and_the_positions_of_get_rope_index() {
    for (chat, fixtures) in checkpoints(SpecialText::StaysText) {
        for case in fixtures.pictures {
            let pictures: Vec<_> = case.grids.iter().map(|(height, width)| picture(*height, *width)).collect();
            let prompt = chat.prompt(&case.conversation.conversation(), &pictures.clone().into(), None).unwrap().prompt;
            assert!(matches(&prompt.ids, &case.ids), "{}: {:?}", case.name, prompt.ids);
            assert!(matches(&prompt.positions, &case.positions), "{}: {:?}", case.name, prompt.positions);
            assert_eq!(prompt.rope_delta, case.rope_delta, "{}", case.name);
            let pad = chat.tokenizer().id_of("<|image_pad|>").unwrap();
            for (placed, picture) in prompt.pictures.iter().zip(&pictures) {
                assert!(Arc::ptr_eq(&placed.picture, picture));
                assert_eq!(placed.placeholders.len(), picture.grid.num_tokens());
                assert!(prompt.ids[placed.placeholders.clone()].iter().all(|id| *id == pad));
            }
        }
    }
}

#[test]
fn videos_get_their_times_and_tokens_and_the_positions_of_get_rope_index() {
    for (places, is_inside) in [(VideoPlaces::InsidePair, true), (VideoPlaces::InPlaceOfPair, false)] {
        for (chat, fixtures) in checkpoints(SpecialText::StaysText) {
            let chat = chat.with_video_places(places);
            for case in fixtures.videos {
                let expected = if is_inside { case.inside } else { case.instead };
                let visuals = Visuals {
                    pictures: case.grids.iter().map(|(height, width)| picture(*height, *width)).collect(),
                    clips: case.clips.iter().map(|(grid, indices, fps)| clip(*grid, indices, *fps)).collect(),
                };
                let prompt = chat.prompt(&case.conversation.conversation(), &visuals, None).unwrap().prompt;
                assert!(matches(&prompt.ids, &expected.ids), "{}: {:?}", case.name, prompt.ids);
                assert!(matches(&prompt.positions, &expected.positions), "{}: {:?}", case.name, prompt.positions);
                assert_eq!(prompt.rope_delta, expected.rope_delta, "{}", case.name);
            }
        }
    }
}

#[test]
fn a_video_without_a_place_and_a_place_without_a_video_are_refused() {
    let (chat, _) = fry(SpecialText::StaysText);
    let refusal = |text: &str, clips: Vec<Clip>| {
        let visuals = Visuals { clips, ..Visuals::default() };
        chat.raw_prompt(text, &visuals, None).unwrap_err().to_string()
    };
    let one = || vec![clip((1, 2, 2), &[0, 1], 2.0)];
    assert!(refusal("Hi", one()).contains("0 places for videos and the request brings 1"));
    assert!(refusal("<|video_pad|><|video_pad|>", one()).contains("2 places for videos and the request brings 1"));
    assert!(refusal("<|video_pad|>", Vec::new()).contains("1 place for videos and the request brings 0"));
    let of_tokens =
        chat.token_prompt(&[chat.tokenizer().id_of("<|video_pad|>").unwrap()], None).unwrap_err().to_string();
    assert!(of_tokens.contains("brings none for it"), "{of_tokens}");
}

#[test]
fn a_clients_own_text_about_a_video_stays_text() {
    let (chat, fixtures) = fry(SpecialText::StaysText);
    let case = fixtures.videos.into_iter().next().unwrap();
    let mut conversation = case.conversation.conversation();
    conversation.messages[0]["content"][1]["text"] = json!("<|video_pad|> is a token");
    let (grid, indices, fps) = &case.clips[0];
    let visuals = Visuals { clips: vec![clip(*grid, indices, *fps)], ..Visuals::default() };
    let prompt = chat.prompt(&conversation, &visuals, None).unwrap().prompt;
    assert_eq!(prompt.pictures.len(), 2);
}

#[test]
fn texts_have_the_token_ids_of_transformers_and_decode_as_there() {
    for (chat, fixtures) in checkpoints(SpecialText::StaysText) {
        for case in fixtures.texts {
            assert_eq!(chat.encode(&case.text).unwrap(), case.ids, "{:?}", case.text);
            assert_eq!(decode(&chat, &case.ids, false), case.decoded);
            assert_eq!(decode(&chat, &case.ids, true), case.decoded_without_special);
        }
    }
}

#[test]
fn every_token_decodes_alone_and_unassigned_ids_decode_to_nothing() {
    for (chat, _) in checkpoints(SpecialText::StaysText) {
        let num_ids = chat.tokenizer().vocabulary().len() as u32;
        assert!((0..num_ids).all(|id| !chat.token_text(id).is_empty()));
        assert_eq!((chat.token_text(num_ids), chat.token_text(u32::MAX)), (String::new(), String::new()));
        let (end, think) = (chat.tokenizer().id_of("<|im_end|>").unwrap(), chat.tokenizer().id_of("<think>").unwrap());
        assert_eq!(chat.token_text(end), "<|im_end|>");
        assert!(chat.is_special(end) && !chat.is_special(think));
    }
}

#[test]
fn a_raw_prompt_has_special_tokens_where_their_text_is() {
    let (chat, _) = fry(SpecialText::StaysText);
    let text = "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Hi<|im_end|>\n";
    let prompt = chat.raw_prompt(text, &vec![picture(2, 4)].into(), None).unwrap();
    let expanded = text.replace("<|image_pad|>", "<|image_pad|><|image_pad|>");
    assert_eq!(prompt.ids, chat.encode(&expanded).unwrap());
    assert_eq!(prompt.pictures.len(), 1);
}

#[test]
fn pictures_without_a_place_and_places_without_a_picture_are_refused_with_both_numbers() {
    let (chat, _) = fry(SpecialText::StaysText);
    let refusal = |text: &str, pictures: &[Arc<Picture>]| {
        chat.raw_prompt(text, &pictures.to_vec().into(), None).unwrap_err().to_string()
    };
    let text = refusal("<|image_pad|> and <|image_pad|>", &[picture(2, 2)]);
    assert_eq!(text, "the prompt has 2 places for pictures and the request brings 1 picture: they must be as many");
    let text = refusal("Hi", &[picture(2, 2), picture(2, 2)]);
    assert_eq!(text, "the prompt has 0 places for pictures and the request brings 2 pictures: they must be as many");
}

#[test]
fn a_prompt_is_truncated_from_its_start_but_never_inside_a_picture() {
    let (chat, _) = fry(SpecialText::StaysText);
    let text = "abc<|vision_start|><|image_pad|><|vision_end|>";
    let whole = chat.raw_prompt(text, &vec![picture(4, 4)].into(), None).unwrap();
    let cut = |keep| chat.raw_prompt(text, &vec![picture(4, 4)].into(), Some(keep));

    assert_eq!(cut(1000).unwrap(), whole);
    let kept = cut(5).unwrap();
    assert_eq!(kept.ids, whole.ids[whole.len() - 5..]);
    assert_eq!(kept.pictures[0].placeholders, 0..4);
    assert_eq!(kept.positions[0], [0, 0, 0]);
    assert!(cut(1).unwrap().pictures.is_empty());
    let expected = format!(
        "truncating the prompt of {} tokens to its last 3 would cut into a picture of 4 tokens; keep at least 5",
        whole.len()
    );
    assert_eq!(cut(3).unwrap_err().to_string(), expected);
}

#[test]
fn an_empty_prompt_is_refused() {
    let (chat, _) = fry(SpecialText::StaysText);
    assert_eq!(chat.raw_prompt("", &Visuals::default(), None).unwrap_err().to_string(), "the prompt is empty");
}

fn decode(chat: &Chat, ids: &[u32], skip_special_tokens: bool) -> String {
    let mut decoder = chat.decoder(skip_special_tokens);
    let mut text: String = ids.iter().map(|id| decoder.push(*id)).collect();
    text.push_str(&decoder.finish());
    text
}

fn picture(height: usize, width: usize) -> Arc<Picture> {
    Arc::new(Picture::new(Vec::new(), Grid { height, width }))
}

/// A clip of the frames at `indices` of a video with `fps` frames per second.
fn clip((groups, height, width): (usize, usize, usize), indices: &[usize], fps: f64) -> Clip {
    let seconds = sardine::media::video::sampling::timestamps(indices, fps, 2);
    assert_eq!(seconds.len(), groups);
    Clip { groups: (0..groups).map(|_| picture(height, width)).collect(), seconds }
}
