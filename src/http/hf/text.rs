//! A plain text with pictures in it or beside it: as one turn of the user, or as a prompt that is complete already.

use std::collections::VecDeque;

use serde_json::{Value, json};

use crate::chat::PICTURE_PLACE;
use crate::error::Error;
use crate::http::json::refuse;
use crate::media::Source;

/// What a text is cut into.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Text(&'a str),
    /// Where the template would put a picture.
    Place,
    /// TGI's form of a picture in a prompt: `![](https://...)`.
    Markdown(&'a str),
}

/// The message of a user who says `text` and shows `pictures`, and its pictures in order.
///
/// Pictures stand before the text, unless it has places for them. Errors where the numbers differ.
pub(in crate::http) fn user_message(
    text: &str,
    pictures: Vec<Source>,
    path: &str,
) -> Result<(Value, Vec<Source>), Error> {
    let pieces = pieces(text);
    let mut pictures = VecDeque::from(pictures);
    let (mut parts, mut media) = (Vec::new(), Vec::new());
    if num_places(&pieces) == 0 {
        pictures.drain(..).for_each(|picture| push_picture(&mut parts, &mut media, picture));
    } else if !pictures.is_empty() {
        check_places(num_places(&pieces), pictures.len(), path)?;
    }
    for piece in pieces {
        match piece {
            Piece::Text(text) => push_text(&mut parts, text),
            Piece::Markdown(url) => push_picture(&mut parts, &mut media, Source::Text(url.to_owned())),
            Piece::Place => match pictures.pop_front() {
                Some(picture) => push_picture(&mut parts, &mut media, picture),
                // Without pictures it is text that happens to look so.
                None => push_text(&mut parts, PICTURE_PLACE),
            },
        }
    }
    let content = match &parts[..] {
        [only] if media.is_empty() => only["text"].clone(),
        _ => Value::Array(parts),
    };
    Ok((json!({ "role": "user", "content": content }), media))
}

/// A text that is the prompt itself: pictures in Markdown become places, and `pictures` belong to the places in it, which
/// must be as many.
pub(in crate::http) fn raw(text: &str, pictures: Vec<Source>, path: &str) -> Result<(String, Vec<Source>), Error> {
    let pieces = pieces(text);
    check_places(num_places(&pieces), pictures.len(), path)?;
    let (mut prompt, mut media, mut pictures) = (String::new(), Vec::new(), VecDeque::from(pictures));
    for piece in pieces {
        match piece {
            Piece::Text(text) => prompt.push_str(text),
            Piece::Place => {
                prompt.push_str(PICTURE_PLACE);
                media.extend(pictures.pop_front());
            }
            Piece::Markdown(url) => {
                prompt.push_str(PICTURE_PLACE);
                media.push(Source::Text(url.to_owned()));
            }
        }
    }
    Ok((prompt, media))
}

fn check_places(num_places: usize, num_pictures: usize, path: &str) -> Result<(), Error> {
    if num_places == num_pictures {
        return Ok(());
    }
    let message =
        format!("has {num_places} places ({PICTURE_PLACE}) for {num_pictures} pictures: they must be as many");
    Err(refuse(path, &message))
}

fn num_places(pieces: &[Piece]) -> usize {
    pieces.iter().filter(|piece| **piece == Piece::Place).count()
}

fn push_text(parts: &mut Vec<Value>, text: &str) {
    match parts.last_mut().and_then(|last| last.get_mut("text")) {
        Some(Value::String(last)) => last.push_str(text),
        _ => parts.push(json!({ "type": "text", "text": text })),
    }
}

fn push_picture(parts: &mut Vec<Value>, media: &mut Vec<Source>, picture: Source) {
    parts.push(json!({ "type": "image" }));
    media.push(picture);
}

fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut copied, mut at) = (Vec::new(), 0, 0);
    while let Some(found) = text[at..].find(['!', '<']) {
        at += found;
        let Some((piece, len)) = picture_at(&text[at..]) else {
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

/// The picture with which `text` begins, and the length of what stands for it. An address that is none (a picture of some
/// document's own folder, say) is left in the text.
fn picture_at(text: &str) -> Option<(Piece<'_>, usize)> {
    if text.starts_with(PICTURE_PLACE) {
        return Some((Piece::Place, PICTURE_PLACE.len()));
    }
    let (url, _) = text.strip_prefix("![](")?.split_once(')')?;
    let is_address = ["http://", "https://", "data:"].iter().any(|scheme| url.starts_with(scheme));
    is_address.then_some((Piece::Markdown(url), "![]()".len() + url.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{PICTURE_PLACE, raw, user_message};
    use crate::media::Source;

    fn source(text: &str) -> Source {
        Source::Text(text.to_owned())
    }

    fn content(text: &str, pictures: &[&str]) -> (Value, Vec<Source>) {
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
