//! The `Date` of responses, which is made once a second.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::header::HeaderValue;

/// The last date that was made, and for which second.
#[derive(Default)]
pub(crate) struct Date(RefCell<Option<(u64, HeaderValue)>>);

impl Date {
    /// RFC 9110, 6.6.1.
    pub(crate) fn value(&self) -> HeaderValue {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        self.at(since.map_or(0, |since| since.as_secs()))
    }

    fn at(&self, second: u64) -> HeaderValue {
        let mut known = self.0.borrow_mut();
        match &*known {
            Some((at, value)) if *at == second => value.clone(),
            _ => {
                let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(second));
                let value = HeaderValue::try_from(text);
                let value = value.unwrap_or_else(|_| HeaderValue::from_static(""));
                *known = Some((second, value.clone()));
                value
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_second_has_its_date() {
        let date = Date::default();
        for _ in 0..2 {
            assert_eq!(date.at(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        }
        assert_eq!(date.at(784_111_778), "Sun, 06 Nov 1994 08:49:38 GMT");
    }
}
