#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| cow_fuzz::journal::run(data));
