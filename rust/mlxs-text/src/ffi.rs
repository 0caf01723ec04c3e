//! The C border; `include/mlxs_text.h` is its contract and documents each item. Every call that can fail runs
//! under `guard`: errors become codes, panics too, and nothing unwinds into C++.
#![allow(missing_docs, non_camel_case_types)]

use crate::chat_template::ChatTemplate;
use crate::error::{Fault, Result, TextError};
use crate::grammar::{GrammarEngine, GrammarKind, Matcher};
use crate::tokenizer::{Kind, Spec, Tokenizer};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::{mem, slice};

const OK: i32 = 0;
const BAD_MODEL: i32 = 1;
const BAD_INPUT: i32 = 2;
const PANIC: i32 = 3;

#[repr(C)]
#[derive(Clone, Copy)]
pub struct mlxs_str {
    data: *const u8,
    size: usize,
}

/// A Vec taken apart, for C++ to hold and give back.
#[repr(C)]
pub struct OwnedArray<T> {
    data: *mut T,
    size: usize,
    capacity: usize,
}

pub type mlxs_text_bytes = OwnedArray<u8>;
pub type mlxs_text_ids = OwnedArray<u32>; // ids are below 2^31: the same bits as int32_t

#[repr(C)]
pub struct mlxs_text_error {
    message: mlxs_text_bytes,
    hint: mlxs_text_bytes,
}

#[repr(C)]
pub struct mlxs_tokenizer_spec {
    kind: i32,
    pre: mlxs_str,
    tokens: *const mlxs_str,
    num_tokens: usize,
    token_types: *const i64,
    num_token_types: usize,
    scores: *const f64,
    num_scores: usize,
    merges: *const mlxs_str,
    num_merges: usize,
    add_bos: i8,
    add_eos: i8,
    add_space_prefix: i8,
    bos: i32,
    eos: i32,
    eot: i32,
    unknown: i32,
}

#[repr(C)]
pub struct mlxs_token_table {
    bytes: *const u8,
    offsets: *const u32,
    flags: *const u8,
    num_tokens: usize,
    bos: i32,
    eos: i32,
    space_prefix: i32,
    joins: i32,
}

impl<T> OwnedArray<T> {
    fn new(values: Vec<T>) -> Self {
        let mut values = mem::ManuallyDrop::new(values);
        Self { data: values.as_mut_ptr(), size: values.len(), capacity: values.capacity() }
    }

    /// # Safety
    /// `self` came from `new` and was not taken back before, or is all zero.
    unsafe fn take_back(self) {
        if !self.data.is_null() {
            drop(unsafe { Vec::from_raw_parts(self.data, self.size, self.capacity) });
        }
    }
}

/// # Safety
/// `data` points to `size` values that outlive the use of the slice, or `size` is 0.
unsafe fn as_slice<'a, T>(data: *const T, size: usize) -> &'a [T] {
    match size {
        0 => &[],
        _ => unsafe { slice::from_raw_parts(data, size) },
    }
}

impl mlxs_str {
    /// # Safety
    /// As `as_slice`.
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        unsafe { as_slice(self.data, self.size) }
    }
}

/// # Safety
/// As `as_slice`, for the array and for each text in it.
unsafe fn texts<'a>(data: *const mlxs_str, size: usize, name: &str) -> Result<Vec<&'a str>> {
    let all = unsafe { as_slice(data, size) }.iter().enumerate();
    all.map(|(index, text)| {
        std::str::from_utf8(unsafe { text.bytes() }).map_err(|_| {
            TextError::model(
                format!("{name}[{index}] is not UTF-8"),
                "the vocabulary is damaged: convert the model again",
            )
        })
    })
    .collect()
}

/// Runs a call and stores its result.
///
/// # Safety
/// `out` and `error` can be written to.
unsafe fn guard<T>(out: *mut T, error: *mut mlxs_text_error, call: impl FnOnce() -> Result<T>) -> i32 {
    let (code, failure) = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => {
            unsafe { out.write(value) };
            return OK;
        }
        Ok(Err(failure)) if failure.fault == Fault::Model => (BAD_MODEL, failure),
        Ok(Err(failure)) => (BAD_INPUT, failure),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("unknown");
            let message = format!("the text library panicked: {text}");
            (PANIC, TextError::input(message, "this is a bug: please report it"))
        }
    };
    let message = OwnedArray::new(failure.message.into_bytes());
    let hint = OwnedArray::new(failure.hint.into_bytes());
    unsafe { error.write(mlxs_text_error { message, hint }) };
    code
}

fn optional_id(id: i32) -> Option<u32> {
    u32::try_from(id).ok()
}

fn optional_flag(flag: i8) -> Option<bool> {
    (flag >= 0).then_some(flag != 0)
}

fn id_or_none(id: Option<u32>) -> i32 {
    id.map_or(-1, |id| id as i32)
}

/// # Safety
/// `bytes` came from this library and is freed once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_text_free(bytes: mlxs_text_bytes) {
    unsafe { bytes.take_back() }
}

/// # Safety
/// `ids` came from this library and is freed once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_text_free_ids(ids: mlxs_text_ids) {
    unsafe { ids.take_back() }
}

/// # Safety
/// All pointers of `spec` are valid for their counts during the call; `out` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_tokenizer_from_spec(
    spec: &mlxs_tokenizer_spec,
    out: *mut *mut Tokenizer,
    error: *mut mlxs_text_error,
) -> i32 {
    let build = || {
        let pre = [spec.pre];
        let spec = unsafe {
            Spec {
                kind: if spec.kind == 0 { Kind::ByteLevelBpe } else { Kind::SentencePieceBpe },
                pre: texts(pre.as_ptr(), 1, "tokenizer.ggml.pre")?[0],
                tokens: texts(spec.tokens, spec.num_tokens, "tokenizer.ggml.tokens")?,
                token_types: as_slice(spec.token_types, spec.num_token_types),
                scores: as_slice(spec.scores, spec.num_scores),
                merges: as_slice(spec.merges, spec.num_merges).iter().map(|merge| merge.bytes()).collect(),
                add_bos: optional_flag(spec.add_bos),
                add_eos: optional_flag(spec.add_eos),
                add_space_prefix: optional_flag(spec.add_space_prefix),
                bos: optional_id(spec.bos),
                eos: optional_id(spec.eos),
                eot: optional_id(spec.eot),
                unknown: optional_id(spec.unknown),
            }
        };
        Ok(Box::into_raw(Box::new(Tokenizer::from_spec(spec)?)))
    };
    unsafe { guard(out, error, build) }
}

/// # Safety
/// `json` is valid during the call; `out` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_tokenizer_from_json(
    json: mlxs_str,
    bos: i32,
    eos: i32,
    out: *mut *mut Tokenizer,
    error: *mut mlxs_text_error,
) -> i32 {
    let build = || {
        let tokenizer = Tokenizer::from_json(unsafe { json.bytes() }, optional_id(bos), optional_id(eos))?;
        Ok(Box::into_raw(Box::new(tokenizer)))
    };
    unsafe { guard(out, error, build) }
}

/// # Safety
/// `tokenizer` is null, or came from this library and is freed once, after its last use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_tokenizer_free(tokenizer: *mut Tokenizer) {
    if !tokenizer.is_null() {
        drop(unsafe { Box::from_raw(tokenizer) });
    }
}

#[unsafe(no_mangle)]
pub extern "C" fn mlxs_tokenizer_table(tokenizer: &Tokenizer) -> mlxs_token_table {
    let (bytes, offsets, flags) = tokenizer.vocabulary().table();
    mlxs_token_table {
        bytes: bytes.as_ptr(),
        offsets: offsets.as_ptr(),
        flags: flags.as_ptr(),
        num_tokens: flags.len(),
        bos: id_or_none(tokenizer.bos),
        eos: id_or_none(tokenizer.eos),
        space_prefix: i32::from(tokenizer.space_prefix),
        joins: i32::from(tokenizer.joins()),
    }
}

/// # Safety
/// `token` is valid during the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_tokenizer_find(tokenizer: &Tokenizer, token: mlxs_str) -> i32 {
    id_or_none(tokenizer.vocabulary().find(unsafe { token.bytes() }))
}

/// # Safety
/// `text` is valid during the call; `out` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_tokenizer_encode(
    tokenizer: &Tokenizer,
    text: mlxs_str,
    add_special: i32,
    parse_special: i32,
    out: *mut mlxs_text_ids,
    error: *mut mlxs_text_error,
) -> i32 {
    let encode = || {
        let text = String::from_utf8_lossy(unsafe { text.bytes() });
        let ids = tokenizer.encode(&text, add_special != 0, parse_special != 0)?;
        Ok(OwnedArray::new(ids))
    };
    unsafe { guard(out, error, encode) }
}

/// # Safety
/// `ids` are valid during the call; `out` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_tokenizer_decode(
    tokenizer: &Tokenizer,
    ids: *const u32,
    num_ids: usize,
    include_special: i32,
    out: *mut mlxs_text_bytes,
    error: *mut mlxs_text_error,
) -> i32 {
    let decode = || {
        let text = tokenizer.decode(unsafe { as_slice(ids, num_ids) }, include_special != 0)?;
        Ok(OwnedArray::new(text.into_bytes()))
    };
    unsafe { guard(out, error, decode) }
}

/// # Safety
/// The texts are valid during the call; `out` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_template_new(
    source: mlxs_str,
    bos_token: mlxs_str,
    eos_token: mlxs_str,
    out: *mut *mut ChatTemplate,
    error: *mut mlxs_text_error,
) -> i32 {
    let build = || {
        let [source, bos_token, eos_token] =
            [source, bos_token, eos_token].map(|text| String::from_utf8_lossy(unsafe { text.bytes() }));
        let template = ChatTemplate::new(&source, &bos_token, &eos_token)?;
        Ok(Box::into_raw(Box::new(template)))
    };
    unsafe { guard(out, error, build) }
}

/// # Safety
/// `template` is null, or came from this library and is freed once, after its last use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_template_free(template: *mut ChatTemplate) {
    if !template.is_null() {
        drop(unsafe { Box::from_raw(template) });
    }
}

/// # Safety
/// `context` is valid during the call; `out` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_template_render(
    template: &ChatTemplate,
    context: mlxs_str,
    unix_seconds: i64,
    out: *mut mlxs_text_bytes,
    error: *mut mlxs_text_error,
) -> i32 {
    let render = || {
        let context = String::from_utf8_lossy(unsafe { context.bytes() });
        let text = template.render(&context, unix_seconds)?;
        Ok(OwnedArray::new(text.into_bytes()))
    };
    unsafe { guard(out, error, render) }
}

/// # Safety
/// `ends` points to `num_ends` ids; `out` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_grammar_engine_new(
    tokenizer: &Tokenizer,
    ends: *const u32,
    num_ends: usize,
    out: *mut *mut GrammarEngine,
    error: *mut mlxs_text_error,
) -> i32 {
    let build = || {
        let engine = GrammarEngine::new(tokenizer, unsafe { as_slice(ends, num_ends) })?;
        Ok(Box::into_raw(Box::new(engine)))
    };
    unsafe { guard(out, error, build) }
}

/// # Safety
/// `engine` is null, or came from this library and is freed once, after its last use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_grammar_engine_free(engine: *mut GrammarEngine) {
    if !engine.is_null() {
        drop(unsafe { Box::from_raw(engine) });
    }
}

/// # Safety
/// `text` is valid during the call; `out` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_matcher_new(
    engine: &GrammarEngine,
    kind: i32,
    text: mlxs_str,
    out: *mut *mut Matcher,
    error: *mut mlxs_text_error,
) -> i32 {
    let build = || {
        let kind = match kind {
            0 => GrammarKind::JsonSchema,
            1 => GrammarKind::Regex,
            2 => GrammarKind::Lark,
            _ => GrammarKind::Choice,
        };
        let text = std::str::from_utf8(unsafe { text.bytes() })
            .map_err(|_| TextError::input("it is not UTF-8", ""))?;
        Ok(Box::into_raw(Box::new(engine.matcher(kind, text)?)))
    };
    unsafe { guard(out, error, build) }
}

#[unsafe(no_mangle)]
pub extern "C" fn mlxs_matcher_another(matcher: &Matcher) -> *mut Matcher {
    // Cloning allocates and copies; what could panic in it is a bug that must not unwind into C++.
    catch_unwind(AssertUnwindSafe(|| Box::into_raw(Box::new(matcher.another()))))
        .unwrap_or(std::ptr::null_mut())
}

#[unsafe(no_mangle)]
pub extern "C" fn mlxs_matcher_restart(matcher: &mut Matcher) -> i32 {
    catch_unwind(AssertUnwindSafe(|| i32::from(matcher.restart()))).unwrap_or(0)
}

/// # Safety
/// `matcher` is null, or came from this library and is freed once, after its last use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_matcher_free(matcher: *mut Matcher) {
    if !matcher.is_null() {
        drop(unsafe { Box::from_raw(matcher) });
    }
}

/// # Safety
/// `bits` points to `words` values; `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_matcher_mask(
    matcher: &mut Matcher,
    bits: *mut u32,
    words: usize,
    error: *mut mlxs_text_error,
) -> i32 {
    let mut done = ();
    let bits = unsafe { slice::from_raw_parts_mut(bits, words) };
    unsafe { guard(&mut done, error, || matcher.mask(bits)) }
}

/// # Safety
/// `allowed` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_matcher_allows(
    matcher: &mut Matcher,
    token: i32,
    allowed: *mut i32,
    error: *mut mlxs_text_error,
) -> i32 {
    unsafe { guard(allowed, error, || Ok(i32::from(matcher.allows(token as u32)?))) }
}

/// # Safety
/// `ended` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_matcher_commit(
    matcher: &mut Matcher,
    token: i32,
    ended: *mut i32,
    error: *mut mlxs_text_error,
) -> i32 {
    unsafe { guard(ended, error, || Ok(i32::from(matcher.commit(token as u32)?))) }
}
