//! What a call has cost, as its answer says.
//!
//! Pure. Costs with decimals are rounded up. Must never know: what follows from it. Next: `engine/caller/uncounted.rs`.

use http::HeaderMap;

use crate::model::limit_headers::CostSource;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    Nothing,
    Cost(u32),
    /// It is there and cannot be meant.
    Garbage,
}

pub fn read(source: &CostSource, headers: &HeaderMap, body: &[u8]) -> Told {
    match source {
        CostSource::Header(name) => match headers.get(name) {
            None => Told::Nothing,
            Some(value) => number(value.to_str().ok().and_then(|text| text.trim().parse().ok())),
        },
        CostSource::Json(pointer) => {
            let Ok(body) = serde_json::from_slice::<serde_json::Value>(body) else { return Told::Nothing };
            match body.pointer(pointer) {
                None | Some(serde_json::Value::Null) => Told::Nothing,
                Some(value) => number(value.as_f64()),
            }
        }
    }
}

fn number(cost: Option<f64>) -> Told {
    match cost {
        // More than any limit has would be cut off by the cast.
        Some(cost) if (0.0..=f64::from(u32::MAX)).contains(&cost) => Told::Cost(cost.ceil() as u32),
        _ => Told::Garbage,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cost_is_read_from_a_header_or_the_body_and_rounded_up() {
        let header = CostSource::Header(http::HeaderName::from_static("x-cost"));
        let of = |text: &str| {
            read(
                &header,
                &[(http::HeaderName::from_static("x-cost"), text.parse().unwrap())].into_iter().collect(),
                b"",
            )
        };
        assert_eq!(read(&header, &HeaderMap::new(), b""), Told::Nothing);
        for (text, told) in [
            ("10", Told::Cost(10)),
            (" 10.2 ", Told::Cost(11)),
            ("0", Told::Cost(0)),
            ("-1", Told::Garbage),
            ("NaN", Told::Garbage),
            ("1e300", Told::Garbage),
            ("many", Told::Garbage),
        ] {
            assert_eq!(of(text), told, "{text:?}");
        }
        let json = CostSource::Json("/extensions/cost/actualQueryCost".to_owned());
        let of = |body: &str| read(&json, &HeaderMap::new(), body.as_bytes());
        assert_eq!(of(r#"{"extensions":{"cost":{"requestedQueryCost":101,"actualQueryCost":46}}}"#), Told::Cost(46));
        assert_eq!(of(r#"{"extensions":{"cost":{"actualQueryCost":"46"}}}"#), Told::Garbage);
        assert_eq!(of(r#"{"extensions":{"cost":{"actualQueryCost":null}}}"#), Told::Nothing);
        assert_eq!((of("{}"), of("{\"cut"), of("")), (Told::Nothing, Told::Nothing, Told::Nothing));
    }
}
