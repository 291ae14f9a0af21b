//! How large a picture may become, where a request says so: Qwen's `min_pixels` and `max_pixels`, and OpenAI's `detail`.

use serde_json::{Map, Value};

use super::json::{join, kind, refuse, shown};
use crate::error::Error;
use crate::media::Area;

/// Where vLLM's requests bound all their pictures.
pub(in crate::http) const PROCESSOR_KWARGS: &str = "mm_processor_kwargs";

/// Takes the area out of an object that describes a picture and stands at `path`.
pub(in crate::http) fn take_area(object: &mut Map<String, Value>, path: &str) -> Result<Area, Error> {
    let area =
        Area { min_pixels: pixels(object, "min_pixels", path)?, max_pixels: pixels(object, "max_pixels", path)? };
    Ok(area.or(take_detail(object, path)?))
}

/// The area of all pictures of a request that have none of their own.
pub(in crate::http) fn processor_area(mut kwargs: Map<String, Value>) -> Result<Area, Error> {
    kwargs.retain(|_, value| !value.is_null());
    let area = Area {
        min_pixels: pixels(&mut kwargs, "min_pixels", PROCESSOR_KWARGS)?,
        max_pixels: pixels(&mut kwargs, "max_pixels", PROCESSOR_KWARGS)?,
    };
    match kwargs.keys().next() {
        Some(other) => {
            Err(refuse(&join(PROCESSOR_KWARGS, other), "is not supported; there are min_pixels and max_pixels"))
        }
        None => Ok(area),
    }
}

fn take_detail(object: &mut Map<String, Value>, path: &str) -> Result<Area, Error> {
    match object.shift_remove("detail") {
        None | Some(Value::Null) => Ok(Area::default()),
        Some(Value::String(detail)) if detail == "low" => Ok(Area::LOW_DETAIL),
        // What the checkpoint makes of a picture is its best.
        Some(Value::String(detail)) if matches!(detail.as_str(), "auto" | "high" | "original") => Ok(Area::default()),
        Some(other) => {
            let message = format!("must be \"low\", \"high\" or \"auto\", not {}", shown(&other));
            Err(refuse(&join(path, "detail"), &message))
        }
    }
}

fn pixels(object: &mut Map<String, Value>, key: &str, path: &str) -> Result<Option<usize>, Error> {
    let Some(value) = object.shift_remove(key).filter(|value| !value.is_null()) else { return Ok(None) };
    match value.as_u64().and_then(|pixels| usize::try_from(pixels).ok()).filter(|pixels| *pixels > 0) {
        Some(pixels) => Ok(Some(pixels)),
        None => {
            let given = if value.is_number() { shown(&value) } else { kind(&value).to_owned() };
            Err(refuse(&join(path, key), &format!("must be a whole number above 0, not {given}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{processor_area, take_area};
    use crate::media::Area;

    fn area(mut object: Value) -> Result<Area, String> {
        take_area(object.as_object_mut().unwrap(), "p").map_err(|error| error.to_string())
    }

    fn within(min_pixels: Option<usize>, max_pixels: Option<usize>) -> Area {
        Area { min_pixels, max_pixels }
    }

    #[test]
    fn pixels_say_more_than_a_detail() {
        assert_eq!(area(json!({"detail": "low"})), Ok(Area::LOW_DETAIL));
        assert_eq!(area(json!({"detail": "high"})), Ok(Area::default()));
        assert_eq!(area(json!({"detail": "auto", "min_pixels": null})), Ok(Area::default()));
        assert_eq!(area(json!({"detail": "low", "max_pixels": 5000})), Ok(within(None, Some(5000))));
        assert_eq!(area(json!({"min_pixels": 7})), Ok(within(Some(7), None)));
    }

    #[test]
    fn what_is_no_area_is_refused_by_its_place() {
        for (object, place) in [
            (json!({"detail": "ultra"}), "`p.detail` must be"),
            (json!({"detail": 1}), "`p.detail` must be"),
            (json!({"max_pixels": 0}), "`p.max_pixels` must be a whole number above 0, not 0"),
            (json!({"min_pixels": "5"}), "`p.min_pixels` must be a whole number above 0, not a string"),
        ] {
            let refusal = area(object.clone()).unwrap_err();
            assert!(refusal.starts_with(place), "{object}: {refusal}");
        }
        let kwargs = |value: Value| processor_area(value.as_object().unwrap().clone());
        assert_eq!(kwargs(json!({"max_pixels": 9, "min_pixels": null})), Ok(within(None, Some(9))));
        assert!(
            kwargs(json!({"do_resize": false})).unwrap_err().to_string().starts_with("`mm_processor_kwargs.do_resize`")
        );
    }
}
