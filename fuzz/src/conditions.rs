//! `Range`, `If-*` and `Accept-Encoding`: parts lie within the file, numbers of any length are numbers,
//! and what RFC 9110 calls well-formed is understood as it says.

use std::time::{Duration, SystemTime};

use rondel_http::fuzzing::{conditions, liked, part};
use rondel_http::http::header::{HeaderMap, HeaderValue, IF_NONE_MATCH, RANGE};

use crate::text::{Dice, headers};

const ETAG: &str = "\"5-3e8\"";

fn modified() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
}

pub fn check(data: &[u8]) {
    let mut dice = Dice(data);
    let kind = dice.byte();
    let len = match kind % 3 {
        0 => 1000,
        1 => u64::from_be_bytes(dice.array()),
        _ => u64::from(dice.byte()),
    };
    if kind & 8 == 8 {
        return written(dice, len);
    }
    let map = headers(dice.0);
    let found = part(&map, ETAG, modified(), len);
    if let Ok(Some(part)) = &found {
        assert!(
            part.start < part.end && part.end <= len,
            "{part:?} of {len}"
        );
    }
    let mut ranges = map.get_all(RANGE).iter();
    match (ranges.next(), ranges.next()) {
        (Some(one), None) if !map.contains_key("if-range") => {
            let text = one.to_str().ok();
            assert_eq!(
                found,
                text.map_or(Ok(None), |text| model(text, len)),
                "{one:?} of {len}"
            );
        }
        (Some(_), None) => assert!(found == Ok(None) || found == Err(()) || found.is_ok()),
        _ => assert_eq!(found, Ok(None)),
    }
    let status = conditions(&map, ETAG, modified());
    assert!(matches!(status, 200 | 304 | 412));
    let conditional = map.keys().any(|name| name.as_str().starts_with("if-"));
    assert!(conditional || status == 200);
    if !map.contains_key("if-match") && !map.contains_key("if-unmodified-since") {
        assert_ne!(status, 412);
        if let Some(same) = well_formed(&map) {
            assert_eq!(status == 304, same, "{map:?}");
        }
    }
    for coding in ["gzip", "br", "zstd"] {
        assert!(liked(&map, coding) <= 1000);
        if !map.contains_key("accept-encoding") {
            assert_eq!(liked(&map, coding), 0);
        }
    }
}

/// One range, by RFC 9110, 14.1.2, with numbers as long as they please.
fn model(text: &str, len: u64) -> Result<Option<std::ops::Range<u64>>, ()> {
    let Some((unit, set)) = text.split_once('=') else {
        return Ok(None);
    };
    let mut specs = set
        .split(',')
        .map(str::trim)
        .filter(|spec| !spec.is_empty());
    let (Some(spec), None) = (specs.next(), specs.next()) else {
        return Ok(None);
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Ok(None);
    };
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !unit.eq_ignore_ascii_case("bytes") || len == 0 || !digits(first) || !digits(last) {
        return Ok(None);
    }
    // What is beyond any file stays beyond it.
    let number = |text: &str| -> u128 {
        let text = text.trim_start_matches('0');
        let capped = if text.len() > 25 {
            "9999999999999999999999999"
        } else {
            text
        };
        capped.parse().unwrap_or(0)
    };
    let (from, to) = match (first, last) {
        ("", "") => return Ok(None),
        ("", suffix) => (
            u128::from(len).saturating_sub(number(suffix)),
            u128::from(len),
        ),
        (first, "") => (number(first), u128::from(len)),
        (first, last) => {
            if number(first) > number(last) && longer(first, last) {
                return Ok(None);
            }
            (number(first), (number(last) + 1).min(u128::from(len)))
        }
    };
    if from >= to {
        return Err(());
    }
    Ok(Some(
        u64::try_from(from).expect("within")..u64::try_from(to).expect("within"),
    ))
}

/// Numbers beyond what we count are all the same to us, which makes no difference to the answer: none of
/// them lies in a file.
fn longer(first: &str, last: &str) -> bool {
    let most = u128::from(u64::MAX);
    let value = |text: &str| text.parse::<u128>().unwrap_or(u128::MAX).min(most);
    value(first) > value(last)
}

/// Whether the tags of a well-formed `If-None-Match` have ours; `None` if it is none.
fn well_formed(map: &HeaderMap) -> Option<bool> {
    let mut same = false;
    let mut any = false;
    for line in map.get_all(IF_NONE_MATCH) {
        let mut rest = line.to_str().ok()?;
        if rest == "*" {
            return (map.get_all(IF_NONE_MATCH).iter().count() == 1).then_some(true);
        }
        loop {
            rest = rest.trim_start_matches([' ', ',', '\t']);
            if rest.is_empty() {
                break;
            }
            let tag = rest.strip_prefix("W/").unwrap_or(rest);
            let inner = tag.strip_prefix('"')?;
            let end = inner.find('"')?;
            if inner[..end].contains(|c: char| c.is_ascii_whitespace()) {
                return None;
            }
            same |= &inner[..end] == "5-3e8";
            any = true;
            rest = inner[end + 1..].trim_start_matches([' ', '\t']);
            if !rest.is_empty() && !rest.starts_with(',') {
                return None;
            }
        }
    }
    any.then_some(same)
}

/// What we write ourselves is read as it was meant.
fn written(mut dice: Dice<'_>, len: u64) {
    let (a, b) = (
        u64::from_be_bytes(dice.array()),
        u64::from_be_bytes(dice.array()),
    );
    let (a, b) = match dice.byte() % 2 {
        0 => (a, b),
        _ => (a % len.max(1), b % len.max(1)),
    };
    let (first, last) = (a.min(b), a.max(b));
    let ask = |text: String| {
        let mut map = HeaderMap::new();
        map.insert(RANGE, HeaderValue::from_str(&text).expect("text"));
        part(&map, ETAG, modified(), len)
    };
    let is = |from: u64, to: u64| match (len, from < to) {
        (0, _) => Ok(None),
        (_, true) => Ok(Some(from..to)),
        (_, false) => Err(()),
    };
    assert_eq!(
        ask(format!("bytes={first}-{last}")),
        is(first, last.saturating_add(1).min(len))
    );
    assert_eq!(ask(format!("BYTES=, {first}-")), is(first, len));
    assert_eq!(
        ask(format!("bytes=-{last}")),
        is(len.saturating_sub(last), len)
    );
    assert_eq!(ask(format!("bytes={first}-{last},0-0")), Ok(None));
}
