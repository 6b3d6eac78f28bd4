#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rondel_fuzz::http1::check(data));
