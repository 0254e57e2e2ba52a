#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| farthing_fuzzing::run("toolpolicy", data));
