//! The C border of `grammar`; as in `ffi`, `include/mlxs_text.h` documents each item.
#![allow(missing_docs, non_camel_case_types)]

use crate::error::TextError;
use crate::ffi::{as_slice, guard, mlxs_str, mlxs_text_error};
use crate::grammar::{Grammar, GrammarCompiler, GrammarKind, Matcher, TokenSpelling};

const ACCEPTING: i32 = 1;
const STOPPED: i32 = 2;

/// # Safety
/// The arrays are valid for their counts during the call; `out` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_grammar_compiler_new(
    tokens: *const mlxs_str,
    special: *const u8,
    num_tokens: usize,
    ends: *const u32,
    num_ends: usize,
    out: *mut *mut GrammarCompiler,
    error: *mut mlxs_text_error,
) -> i32 {
    let build = || {
        let (tokens, special) = unsafe { (as_slice(tokens, num_tokens), as_slice(special, num_tokens)) };
        let spelling = |(token, &special): (&mlxs_str, &u8)| {
            let bytes = unsafe { token.bytes() };
            TokenSpelling { bytes, special: special != 0 }
        };
        let tokens: Vec<_> = tokens.iter().zip(special).map(spelling).collect();
        let compiler = GrammarCompiler::new(&tokens, unsafe { as_slice(ends, num_ends) })?;
        Ok(Box::into_raw(Box::new(compiler)))
    };
    unsafe { guard(out, error, build) }
}

/// # Safety
/// `compiler` is null, or came from this library and is freed once, after its last use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_grammar_compiler_free(compiler: *mut GrammarCompiler) {
    if !compiler.is_null() {
        drop(unsafe { Box::from_raw(compiler) });
    }
}

/// # Safety
/// `text` is valid during the call; `out` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_grammar_compile(
    compiler: &GrammarCompiler,
    kind: i32,
    text: mlxs_str,
    out: *mut *mut Grammar,
    error: *mut mlxs_text_error,
) -> i32 {
    let compile = || {
        let kind = match kind {
            0 => GrammarKind::JsonSchema,
            1 => GrammarKind::Regex,
            2 => GrammarKind::Choice,
            3 => GrammarKind::Lark,
            _ => return Err(TextError::input(format!("grammar kind {kind} does not exist"), "")),
        };
        let text = std::str::from_utf8(unsafe { text.bytes() })
            .map_err(|error| TextError::input(format!("the grammar is not UTF-8: {error}"), "send UTF-8"))?;
        Ok(Box::into_raw(Box::new(compiler.compile(kind, text)?)))
    };
    unsafe { guard(out, error, compile) }
}

/// # Safety
/// `grammar` is null, or came from this library and is freed once, after its last use.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_grammar_free(grammar: *mut Grammar) {
    if !grammar.is_null() {
        drop(unsafe { Box::from_raw(grammar) });
    }
}

/// # Safety
/// `out` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_matcher_new(
    grammar: &Grammar,
    out: *mut *mut Matcher,
    error: *mut mlxs_text_error,
) -> i32 {
    unsafe { guard(out, error, || Ok(Box::into_raw(Box::new(grammar.matcher())))) }
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
/// `words` can be written to `num_words` times; nobody else uses the matcher; `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_matcher_mask(
    matcher: &mut Matcher,
    words: *mut u32,
    num_words: usize,
    error: *mut mlxs_text_error,
) -> i32 {
    let mask = || match num_words {
        0 => Ok(()),
        _ => matcher.mask(unsafe { std::slice::from_raw_parts_mut(words, num_words) }),
    };
    unsafe { guard(&mut (), error, mask) }
}

/// # Safety
/// Nobody else uses the matcher; `state` and `error` can be written to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mlxs_matcher_commit(
    matcher: &mut Matcher,
    token: u32,
    state: *mut i32,
    error: *mut mlxs_text_error,
) -> i32 {
    let commit = || {
        matcher.commit(token)?;
        let accepting = if matcher.is_accepting() { ACCEPTING } else { 0 };
        Ok(accepting | if matcher.is_stopped() { STOPPED } else { 0 })
    };
    unsafe { guard(state, error, commit) }
}
