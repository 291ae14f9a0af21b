//! How large a picture may become, where a request says so: Qwen's `min_pixels` and `max_pixels`, and OpenAI's `detail`.

use serde_json::{Map, Value};

use super::json::{join, refuse, shown};
use super::video::take_count;
use crate::error::Error;
use crate::media::Area;

/// Takes the area out of an object that describes a picture and stands at `path`.
pub(in crate::http) fn take_area(object: &mut Map<String, Value>, path: &str) -> Result<Area, Error> {
    let area = Area {
        min_pixels: take_count(object, &["min_pixels"], path)?,
        max_pixels: take_count(object, &["max_pixels"], path)?,
    };
    Ok(area.or(take_detail(object, path)?))
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::take_area;
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
    }
}
