//! A plain text with pictures and videos in it or beside it: as one turn of the user, or as a prompt that is complete already.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::chat::{PICTURE_PLACE, VIDEO_PLACE};
use crate::error::Error;
use crate::http::json::refuse;
use crate::media::{Medium, Source};

/// What a text is cut into.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Text(&'a str),
    /// Where the template would put a picture or a video.
    Place(Kind),
    /// TGI's form of a picture in a prompt: `![](https://...)`.
    Markdown(&'a str),
}

/// What a place is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Picture,
    Video,
}

impl Kind {
    fn of(medium: &Medium) -> Kind {
        match medium {
            Medium::Picture(_) => Kind::Picture,
            Medium::Video(_) => Kind::Video,
        }
    }

    /// What the template writes for it.
    fn place(self) -> &'static str {
        match self {
            Kind::Picture => PICTURE_PLACE,
            Kind::Video => VIDEO_PLACE,
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Kind::Picture => "pictures",
            Kind::Video => "videos",
        }
    }
}

const KINDS: [Kind; 2] = [Kind::Picture, Kind::Video];

/// The message of a user who says `text` and shows `shown`, and its pictures and videos in order.
///
/// They stand before the text, unless it has places for them. Errors where the numbers differ.
pub(in crate::http) fn user_message(text: &str, shown: Vec<Medium>, path: &str) -> Result<(Value, Vec<Medium>), Error> {
    let pieces = pieces(text);
    let (mut parts, mut media) = (Vec::new(), Vec::new());
    let mut placed = Vec::new();
    for kind in KINDS {
        let (num_places, num_shown) = (num_places(&pieces, kind), count(&shown, kind));
        if num_places > 0 && num_shown > 0 {
            check_places(kind, num_places, num_shown, path)?;
            placed.push(kind);
        }
    }
    let (shown, before): (Vec<Medium>, Vec<Medium>) =
        shown.into_iter().partition(|medium| placed.contains(&Kind::of(medium)));
    before.into_iter().for_each(|medium| push_medium(&mut parts, &mut media, medium));
    let mut shown = VecDeque::from(shown);
    for piece in pieces {
        match piece {
            Piece::Text(text) => push_text(&mut parts, text),
            Piece::Markdown(url) => push_medium(&mut parts, &mut media, Source::Text(url.to_owned()).into()),
            Piece::Place(kind) => match take(&mut shown, kind) {
                Some(medium) => push_medium(&mut parts, &mut media, medium),
                // Without pictures it is text that happens to look so.
                None => push_text(&mut parts, kind.place()),
            },
        }
    }
    let content = match &parts[..] {
        [only] if media.is_empty() => only["text"].clone(),
        _ => Value::Array(parts),
    };
    Ok((json!({ "role": "user", "content": content }), media))
}

/// A text that is the prompt itself: pictures in Markdown become places, and what is `shown` belongs to the places in it, which
/// must be as many.
pub(in crate::http) fn raw(text: &str, shown: Vec<Medium>, path: &str) -> Result<(String, Vec<Medium>), Error> {
    let pieces = pieces(text);
    for kind in KINDS {
        check_places(kind, num_places(&pieces, kind), count(&shown, kind), path)?;
    }
    let (mut prompt, mut media, mut shown) = (String::new(), Vec::new(), VecDeque::from(shown));
    for piece in pieces {
        match piece {
            Piece::Text(text) => prompt.push_str(text),
            Piece::Place(kind) => {
                prompt.push_str(kind.place());
                media.extend(take(&mut shown, kind));
            }
            Piece::Markdown(url) => {
                prompt.push_str(PICTURE_PLACE);
                media.push(Source::Text(url.to_owned()).into());
            }
        }
    }
    Ok((prompt, media))
}

fn check_places(kind: Kind, num_places: usize, num_shown: usize, path: &str) -> Result<(), Error> {
    if num_places == num_shown {
        return Ok(());
    }
    let (place, plural) = (kind.place(), kind.plural());
    let message = format!("has {num_places} places ({place}) for {num_shown} {plural}: they must be as many");
    Err(refuse(path, &message))
}

fn num_places(pieces: &[Piece], kind: Kind) -> usize {
    pieces.iter().filter(|piece| **piece == Piece::Place(kind)).count()
}

fn count(shown: &[Medium], kind: Kind) -> usize {
    shown.iter().filter(|medium| Kind::of(medium) == kind).count()
}

/// Takes out the first of a kind.
fn take(shown: &mut VecDeque<Medium>, kind: Kind) -> Option<Medium> {
    let at = shown.iter().position(|medium| Kind::of(medium) == kind)?;
    shown.remove(at)
}

fn push_text(parts: &mut Vec<Value>, text: &str) {
    match parts.last_mut().and_then(|last| last.get_mut("text")) {
        Some(Value::String(last)) => last.push_str(text),
        _ => parts.push(json!({ "type": "text", "text": text })),
    }
}

fn push_medium(parts: &mut Vec<Value>, media: &mut Vec<Medium>, medium: Medium) {
    parts.push(match Kind::of(&medium) {
        Kind::Picture => json!({ "type": "image" }),
        Kind::Video => json!({ "type": "video" }),
    });
    media.push(medium);
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut copied, mut at) = (Vec::new(), 0, 0);
    while let Some(found) = text[at..].find(['!', '<']) {
        at += found;
        let Some((piece, len)) = medium_at(&text[at..]) else {
            at += 1;
            continue;
        };
        if copied < at {
            pieces.push(Piece::Text(&text[copied..at]));
        }
        pieces.push(piece);
        at += len;
        copied = at;
    }
    if copied < text.len() {
        pieces.push(Piece::Text(&text[copied..]));
    }
    pieces
}

/// The picture or the place with which `text` begins, and the length of what stands for it. An address that is none (a picture of some
/// document's own folder, say) is left in the text.
fn medium_at(text: &str) -> Option<(Piece<'_>, usize)> {
    if let Some(kind) = KINDS.into_iter().find(|kind| text.starts_with(kind.place())) {
        return Some((Piece::Place(kind), kind.place().len()));
    }
    let (url, _) = text.strip_prefix("![](")?.split_once(')')?;
    let is_address = ["http://", "https://", "data:"].iter().any(|scheme| url.starts_with(scheme));
    is_address.then_some((Piece::Markdown(url), "![]()".len() + url.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{PICTURE_PLACE, VIDEO_PLACE, raw, user_message};
    use crate::media::{Footage, Medium, Source, Video, VideoOptions};

    fn source(text: &str) -> Medium {
        Medium::Picture(Source::Text(text.to_owned()))
    }

    fn video(text: &str) -> Medium {
        let footage = Footage::File(Source::Text(text.to_owned()));
        Medium::Video(Video { footage, options: VideoOptions::default() })
    }

    fn content(text: &str, pictures: &[&str]) -> (Value, Vec<Medium>) {
        let (message, media) =
            user_message(text, pictures.iter().map(|text| source(text)).collect(), "inputs").unwrap();
        (message["content"].clone(), media)
    }

    #[test]
    fn a_text_alone_stays_a_text() {
        assert_eq!(content("Why? ![](chart.png) <b>!", &[]), (json!("Why? ![](chart.png) <b>!"), vec![]));
    }

    #[test]
    fn pictures_stand_before_the_text() {
        let image = json!({"type": "image"});
        let expected = json!([image, image, {"type": "text", "text": "Compare."}]);
        assert_eq!(content("Compare.", &["a", "b"]), (expected, vec![source("a"), source("b")]));
    }

    #[test]
    fn pictures_take_the_places_that_the_text_has_for_them() {
        let text = format!("First {PICTURE_PLACE}, then ![](https://x/b.png), then {PICTURE_PLACE}.");
        let (parts, media) = content(&text, &["a", "c"]);
        let image = json!({"type": "image"});
        let text = |text: &str| json!({"type": "text", "text": text});
        assert_eq!(parts, json!([text("First "), image, text(", then "), image, text(", then "), image, text(".")]));
        assert_eq!(media, [source("a"), source("https://x/b.png"), source("c")]);
    }

    #[test]
    fn videos_have_places_of_their_own() {
        let text = format!("See {VIDEO_PLACE}!");
        let (message, media) = user_message(&text, vec![source("a"), video("b")], "inputs").unwrap();
        let text = |text: &str| json!({"type": "text", "text": text});
        let expected = json!([{"type": "image"}, text("See "), {"type": "video"}, text("!")]);
        assert_eq!((&message["content"], media), (&expected, vec![source("a"), video("b")]));
        let (prompt, media) =
            raw(&format!("{VIDEO_PLACE}{PICTURE_PLACE}"), vec![source("a"), video("b")], "inputs").unwrap();
        assert_eq!((prompt, media), (format!("{VIDEO_PLACE}{PICTURE_PLACE}"), vec![video("b"), source("a")]));
        assert!(raw("<|im_start|>", vec![video("b")], "inputs").unwrap_err().to_string().contains("1 videos"));
    }

    #[test]
    fn as_many_places_as_pictures_or_none() {
        let text = format!("{PICTURE_PLACE} and {PICTURE_PLACE}");
        assert!(user_message(&text, vec![source("a")], "inputs").is_err());
        assert_eq!(content(&text, &[]).0, json!(text));
        assert!(raw("<|im_start|>", vec![source("a")], "inputs").is_err());
    }

    #[test]
    fn a_raw_prompt_gets_places_for_its_markdown_pictures() {
        let text = format!("<|im_start|>user\n{PICTURE_PLACE}![](data:image/png;base64,AA==)!");
        let (prompt, media) = raw(&text, vec![source("a")], "inputs").unwrap();
        assert_eq!(prompt, format!("<|im_start|>user\n{PICTURE_PLACE}{PICTURE_PLACE}!"));
        assert_eq!(media, [source("a"), source("data:image/png;base64,AA==")]);
    }
}
