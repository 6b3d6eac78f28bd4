//! What a request asks for of a file that is there: its conditions and its ranges (RFC 9110, sections
//! 13 and 14).
//!
//! One range is answered with that part. Of several the header is ignored, which section 14.2 allows,
//! and all of the file is sent: who asks for several pieces gets no more of the server than others.

use httpdate::parse_http_date;
use hyper::header::{
    HeaderMap, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, RANGE,
};
use std::ops::Range;
use std::time::{Duration, SystemTime};

/// What tells one state of a file from another.
#[derive(Debug)]
pub(crate) struct Validators<'a> {
    /// Strong, with its quotes.
    pub(crate) etag: &'a str,
    /// In whole seconds, as HTTP has it.
    pub(crate) modified: SystemTime,
}

/// What the conditions of a GET or HEAD come to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Send,
    NotModified,
    Failed,
}

/// The part of a file that a request is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Span {
    Whole,
    Part(Range<u64>),
    Unsatisfiable,
}

/// Section 13.2.2, without its ranges.
pub(crate) fn judge(headers: &HeaderMap, file: &Validators<'_>) -> Verdict {
    if headers.contains_key(IF_MATCH) {
        if !any_tag(headers, &IF_MATCH, |tag| tag == file.etag) {
            return Verdict::Failed;
        }
    } else if date(headers, &IF_UNMODIFIED_SINCE).is_some_and(|since| file.modified > since) {
        return Verdict::Failed;
    }
    if headers.contains_key(IF_NONE_MATCH) {
        if any_tag(headers, &IF_NONE_MATCH, |tag| weak(tag) == file.etag) {
            return Verdict::NotModified;
        }
    } else if date(headers, &IF_MODIFIED_SINCE).is_some_and(|since| file.modified <= since) {
        return Verdict::NotModified;
    }
    Verdict::Send
}

/// The part that is to be sent of a file of so many bytes. For GET only.
pub(crate) fn span(headers: &HeaderMap, file: &Validators<'_>, len: u64) -> Span {
    let mut ranges = headers.get_all(RANGE).iter();
    let (Some(range), None) = (ranges.next(), ranges.next()) else {
        return Span::Whole;
    };
    match headers.get(IF_RANGE) {
        Some(condition) if !is_same(condition.as_bytes(), file) => Span::Whole,
        _ => range.to_str().map_or(Span::Whole, |text| part(text, len)),
    }
}

/// Whether `If-Range` means this very state.
fn is_same(condition: &[u8], file: &Validators<'_>) -> bool {
    if condition == file.etag.as_bytes() {
        return true;
    }
    let text = std::str::from_utf8(condition).ok();
    let date = text.and_then(|text| parse_http_date(text).ok());
    // A date tells states apart once no other could follow within its second (section 8.8.2.2).
    date == Some(file.modified) && file.modified + Duration::from_secs(1) < SystemTime::now()
}

fn part(text: &str, len: u64) -> Span {
    let Some((unit, set)) = text.split_once('=') else {
        return Span::Whole;
    };
    // Of nothing there is no part, but all of it can be had.
    if !unit.eq_ignore_ascii_case("bytes") || len == 0 {
        return Span::Whole;
    }
    let mut specs = set
        .split(',')
        .map(str::trim)
        .filter(|spec| !spec.is_empty());
    let (Some(spec), None) = (specs.next(), specs.next()) else {
        return Span::Whole;
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Span::Whole;
    };
    let range = match (first, last) {
        ("", suffix) => match number(suffix) {
            Some(suffix) => len - suffix.min(len)..len,
            None => return Span::Whole,
        },
        (first, "") => match number(first) {
            Some(first) => first..len,
            None => return Span::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => first..last.saturating_add(1).min(len),
            _ => return Span::Whole,
        },
    };
    if range.is_empty() {
        return Span::Unsatisfiable;
    }
    Span::Part(range)
}

/// Digits alone; a number too large for us is larger than any file.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Whether one of a header's tags is such a one; `*`, alone, is any. A comma within a tag splits it into
/// parts that are no tags, and none of ours has one.
fn any_tag(headers: &HeaderMap, name: &HeaderName, is: impl Fn(&str) -> bool) -> bool {
    let lines = headers.get_all(name).iter();
    let mut lines = lines.filter_map(|line| line.to_str().ok());
    lines.any(|line| line.trim() == "*" || line.split(',').any(|tag| is(tag.trim())))
}

fn weak(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

fn date(headers: &HeaderMap, name: &HeaderName) -> Option<SystemTime> {
    let text = headers.get(name)?.to_str().ok()?;
    parse_http_date(text).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    const ETAG: &str = "\"5-3e8\"";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const LATER: &str = "Sunday, 06-Nov-94 08:49:38 GMT";

    fn headers(lines: &[(&HeaderName, &str)]) -> HeaderMap {
        let pairs = lines
            .iter()
            .map(|(name, value)| ((*name).clone(), value.parse().unwrap()));
        let mut map = HeaderMap::new();
        pairs.for_each(|(name, value)| {
            map.append(name, value);
        });
        map
    }

    fn file() -> Validators<'static> {
        Validators {
            etag: ETAG,
            modified: parse_http_date(MODIFIED).unwrap(),
        }
    }

    fn judged(lines: &[(&HeaderName, &str)]) -> Verdict {
        judge(&headers(lines), &file())
    }

    #[test]
    fn without_conditions_it_is_sent() {
        assert_eq!(judged(&[]), Verdict::Send);
    }

    #[test]
    fn if_none_match_compares_weakly_and_wins_over_the_date() {
        for same in [
            ETAG,
            "W/\"5-3e8\"",
            "\"x\", \"5-3e8\"",
            "*",
            "\"a,b\" ,W/\"5-3e8\"",
        ] {
            assert_eq!(
                judged(&[(&IF_NONE_MATCH, same)]),
                Verdict::NotModified,
                "{same}"
            );
        }
        // The last one is one tag: found by fuzzing.
        let others = ["\"x\"", "5-3e8", "", "\"5-3e8", "\"5-3e8\"x", "\"a,*,b\""];
        for other in others {
            let lines = [(&IF_NONE_MATCH, other), (&IF_MODIFIED_SINCE, MODIFIED)];
            assert_eq!(judged(&lines), Verdict::Send, "{other}");
        }
        let lines = [(&IF_NONE_MATCH, "\"x\""), (&IF_NONE_MATCH, ETAG)];
        assert_eq!(judged(&lines), Verdict::NotModified);
    }

    #[test]
    fn if_modified_since() {
        for since in [MODIFIED, LATER] {
            assert_eq!(judged(&[(&IF_MODIFIED_SINCE, since)]), Verdict::NotModified);
        }
        for since in [EARLIER, "", "yesterday", "0"] {
            assert_eq!(judged(&[(&IF_MODIFIED_SINCE, since)]), Verdict::Send);
        }
    }

    #[test]
    fn if_match_compares_strongly_and_wins_over_the_date() {
        for same in [ETAG, "*", "\"x\",\"5-3e8\""] {
            let lines = [(&IF_MATCH, same), (&IF_UNMODIFIED_SINCE, EARLIER)];
            assert_eq!(judged(&lines), Verdict::Send, "{same}");
        }
        for other in ["W/\"5-3e8\"", "\"x\"", ""] {
            assert_eq!(judged(&[(&IF_MATCH, other)]), Verdict::Failed, "{other}");
        }
        // It comes before If-None-Match.
        assert_eq!(
            judged(&[(&IF_MATCH, "\"x\""), (&IF_NONE_MATCH, ETAG)]),
            Verdict::Failed
        );
        assert_eq!(
            judged(&[(&IF_MATCH, ETAG), (&IF_NONE_MATCH, ETAG)]),
            Verdict::NotModified
        );
    }

    #[test]
    fn if_unmodified_since() {
        assert_eq!(judged(&[(&IF_UNMODIFIED_SINCE, EARLIER)]), Verdict::Failed);
        for since in [MODIFIED, LATER, "nonsense"] {
            assert_eq!(judged(&[(&IF_UNMODIFIED_SINCE, since)]), Verdict::Send);
        }
    }

    fn ranged(range: &str) -> Span {
        span(&headers(&[(&RANGE, range)]), &file(), 1000)
    }

    #[test]
    fn one_range_is_a_part() {
        for (range, part) in [
            ("bytes=0-0", 0..1),
            ("bytes=0-", 0..1000),
            ("Bytes=10-19", 10..20),
            ("bytes= 10-19 ,", 10..20),
            ("bytes=990-5000", 990..1000),
            ("bytes=999-99999999999999999999999", 999..1000),
            ("bytes=-1", 999..1000),
            ("bytes=-5000", 0..1000),
            ("bytes=-99999999999999999999999", 0..1000),
        ] {
            assert_eq!(ranged(range), Span::Part(part), "{range}");
        }
    }

    #[test]
    fn beyond_the_end_there_is_nothing() {
        for range in [
            "bytes=1000-",
            "bytes=1000-2000",
            "bytes=99999999999999999999999-",
            "bytes=-0",
        ] {
            assert_eq!(ranged(range), Span::Unsatisfiable, "{range}");
        }
    }

    #[test]
    fn what_is_no_range_and_several_are_ignored() {
        for range in [
            "",
            "bytes",
            "bytes=",
            "bytes=-",
            "bytes=a-b",
            "bytes=2-1",
            "bytes=+1-2",
            "bytes=1 -2",
            "bytes=1-2-3",
            "bytes 1-2",
            "items=0-1",
            "bytes=0-1,3-4",
            "bytes=0-1,5000-",
            "bytes=0x1-2",
        ] {
            assert_eq!(ranged(range), Span::Whole, "{range}");
        }
        let twice = headers(&[(&RANGE, "bytes=0-1"), (&RANGE, "bytes=0-1")]);
        assert_eq!(span(&twice, &file(), 1000), Span::Whole);
        assert_eq!(
            span(&headers(&[(&RANGE, "bytes=0-1")]), &file(), 0),
            Span::Whole
        );
        assert_eq!(span(&HeaderMap::new(), &file(), 1000), Span::Whole);
    }

    #[test]
    fn if_range_must_be_this_very_state() {
        let with = |condition| {
            span(
                &headers(&[(&RANGE, "bytes=0-1"), (&IF_RANGE, condition)]),
                &file(),
                9,
            )
        };
        for same in [ETAG, MODIFIED] {
            assert_eq!(with(same), Span::Part(0..2), "{same}");
        }
        for other in ["W/\"5-3e8\"", "\"x\"", EARLIER, LATER, "*", ""] {
            assert_eq!(with(other), Span::Whole, "{other}");
        }
    }

    #[test]
    fn a_date_of_just_now_tells_nothing() {
        let modified = SystemTime::now();
        let seconds = modified
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds + 1);
        let file = Validators {
            etag: ETAG,
            modified,
        };
        let text = httpdate::fmt_http_date(modified);
        let map = headers(&[(&RANGE, "bytes=0-1"), (&IF_RANGE, &text)]);
        assert_eq!(span(&map, &file, 9), Span::Whole);
    }
}
