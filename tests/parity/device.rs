//! The CUDA side: that it is really there where its library is, and that a device computes what the CPU computes.
//!
//! `SARDINE_TEST_DEVICE=cuda` runs the tests that need a device; a fake one will do.

use std::sync::Mutex;

use libloading::os::unix::{Library, Symbol};
use sardine::model::cuda::{cuda_runtime_version, load_cuda_library};
use sardine::model::{DeviceChoice, Dtype, QwenRunner};

use crate::driving::{Sequence, generate, step};
use crate::fixtures::{Case, checkpoint, load, options};
use crate::together::compare;

/// The CUDA runtime of libtorch 2.13.
const CUDA_RUNTIME: i64 = 13000;

/// The device counts for the whole process, so its tests take turns.
static DEVICE: Mutex<()> = Mutex::new(());

fn device_is_there() -> bool {
    let is_there = std::env::var("SARDINE_TEST_DEVICE").is_ok_and(|device| device == "cuda");
    if !is_there {
        println!("skipped: SARDINE_TEST_DEVICE is not cuda");
    }
    is_there
}

fn load_on_device(dtype: Dtype) -> QwenRunner {
    let options = sardine::model::LoadOptions { device: DeviceChoice::Cuda(0), ..options(dtype) };
    sardine::model::load(&checkpoint(), &options, &|_, _| {}).unwrap()
}

#[test]
fn where_the_cuda_library_loads_its_runtime_answers() {
    let name = std::env::var("SARDINE_CUDA_LIBRARY").unwrap_or("libtorch_cuda.so".to_owned());
    match load_cuda_library(&name) {
        Ok(()) if name == "none" => println!("skipped: SARDINE_CUDA_LIBRARY is none"),
        Ok(()) => assert_eq!(cuda_runtime_version(), Some(CUDA_RUNTIME)),
        Err(error) => println!("skipped: {error}"),
    }
}

#[test]
fn a_device_that_does_not_answer_is_refused_in_one_line() {
    let options = sardine::model::LoadOptions {
        device: DeviceChoice::Cuda(99),
        cuda_library: "libno_such_library.so".to_owned(),
        ..options(Dtype::Bfloat16)
    };
    let error = sardine::model::load(&checkpoint(), &options, &|_, _| {}).err().expect("it loads");
    assert!(error.starts_with("--device cuda:99: ") && !error.contains('\n'), "{error}");
    if tch::Cuda::device_count() == 0 {
        assert!(error.contains("no CUDA device answered: libno_such_library.so"), "{error}");
    }
}

#[test]
fn generation_on_the_device_equals_the_cpu() {
    if !device_is_there() {
        return;
    }
    let _turn = DEVICE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let (mut on_device, mut on_cpu) = (load_on_device(Dtype::Float32), load(Dtype::Float32));
    assert_eq!(on_device.device_name(), "cuda:0");
    for name in ["text", "tokens_65", "long", "one_image", "two_images"] {
        let case = Case::read(name);
        let answer = generate(&mut on_device, &case.prompt, 0, 100, 24);
        assert_eq!(answer, generate(&mut on_cpu, &case.prompt, 0, 100, 24), "{name}");
        assert_eq!(answer, case.greedy(), "{name}");
    }
}

#[test]
fn company_changes_no_bit_on_the_device_where_it_must_not() {
    if !device_is_there() {
        return;
    }
    let _turn = DEVICE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        let options = sardine::model::LoadOptions {
            device: DeviceChoice::Cuda(0),
            batch_invariant: true,
            max_batch_size: 8,
            ..options(dtype)
        };
        let mut runner = sardine::model::load(&checkpoint(), &options, &|_, _| {}).unwrap();
        for count in [2, 3, 8] {
            let change = compare(&mut runner, count);
            assert_eq!((change.logits, change.same_answers), (0.0, count), "{count} sequences in {dtype:?}");
        }
    }
}

#[test]
fn a_step_of_decoding_waits_for_the_device_once() {
    if !device_is_there() {
        return;
    }
    let _turn = DEVICE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    type Counter = unsafe extern "C" fn() -> u64;
    // Safety: the fake device's counter has this type; a symbol of this name has no other meaning.
    let counter: Result<Symbol<Counter>, _> = unsafe { Library::this().get(b"fakecuda_syncs\0") };
    let Ok(counter) = counter else {
        println!("skipped: this device does not count");
        return;
    };
    let mut runner = load_on_device(Dtype::Bfloat16);
    let cases = ["text", "one_image"].map(Case::read);
    let mut sequences: Vec<Sequence> =
        cases.iter().enumerate().map(|(slot, case)| Sequence::new(&case.prompt, slot, 12)).collect();
    let mut waits = Vec::new();
    while sequences.iter().any(|sequence| !sequence.is_done()) {
        // Safety: as above; it takes nothing and counts.
        let before = unsafe { counter() };
        let mut rows: Vec<(&mut Sequence, usize)> =
            sequences.iter_mut().map(|sequence| (sequence, usize::MAX)).collect();
        step(&mut runner, &mut rows);
        waits.push(unsafe { counter() } - before);
    }
    println!("waits of each step, the prompts' first: {waits:?}");
    assert!(waits[1..].iter().all(|waits| *waits <= 1), "{waits:?}");
}
