//! A compiled program: a plain path, or jq.

/// A program of the configuration, compiled once.
#[derive(Debug)]
pub struct Program {
    source: String,
}

/// Why a program does not compile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProgramError {
    /// Lower case, one line.
    pub message: String,
    /// Bytes of the program's text it is about.
    pub span: std::ops::Range<usize>,
}

impl Program {
    /// Compiles jq text; `$run`, `$vars` and `$response` are known.
    ///
    /// # Errors
    /// `ProgramError` with the place in the text.
    pub fn compile(source: &str) -> Result<Program, ProgramError> {
        Ok(Program { source: source.to_owned() })
    }

    /// The text it was compiled from.
    pub fn source(&self) -> &str {
        &self.source
    }
}
