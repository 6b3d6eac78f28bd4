#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| rondel_fuzz::conditions::check(data));
