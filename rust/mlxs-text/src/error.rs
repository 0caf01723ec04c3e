//! What can go wrong, in the terms that the C++ side maps to its own error codes.

/// Whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The vocabulary, tokenizer.json or template cannot be used.
    Model,
    /// The input of a call is wrong.
    Input,
}

/// Names the thing and the value (`message`) and the remedy (`hint`, may be empty).
#[derive(Debug)]
pub struct TextError {
    /// Whose fault it is.
    pub fault: Fault,
    /// What happened.
    pub message: String,
    /// What to do about it.
    pub hint: String,
}

impl TextError {
    /// A model that cannot be used.
    pub fn model(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { fault: Fault::Model, message: message.into(), hint: hint.into() }
    }

    /// An input that cannot be used.
    pub fn input(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { fault: Fault::Input, message: message.into(), hint: hint.into() }
    }
}

/// The result of everything that can fail here.
pub type Result<T> = std::result::Result<T, TextError>;
