//! Rust source as a row of words: enough to follow paths and braces, no more. Comments and the
//! insides of literals are gone, and code that only tests see can be taken out.

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    Ident(String),
    /// `::`
    PathSep,
    /// Any other sign; a literal is one `"`.
    Sign(char),
}

#[derive(Debug, Clone)]
pub struct Token {
    pub word: Word,
    pub line: usize,
}

impl Token {
    pub fn is_ident(&self, name: &str) -> bool {
        self.ident() == Some(name)
    }

    pub fn ident(&self) -> Option<&str> {
        match &self.word {
            Word::Ident(name) => Some(name),
            _ => None,
        }
    }

    pub fn is_sign(&self, sign: char) -> bool {
        self.word == Word::Sign(sign)
    }
}

pub fn lex(text: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: text.chars().collect(), at: 0, line: 1 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next_token() {
        tokens.push(token);
    }
    tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek(0)?;
        self.at += 1;
        self.line += usize::from(c == '\n');
        Some(c)
    }

    fn next_token(&mut self) -> Option<Token> {
        self.skip_blank();
        let line = self.line;
        let word = match self.peek(0)? {
            '"' => self.string(),
            '\'' => self.char_or_lifetime(),
            ':' if self.peek(1) == Some(':') => {
                self.at += 2;
                Word::PathSep
            }
            c if c.is_alphanumeric() || c == '_' => self.word(),
            c => {
                self.bump();
                Word::Sign(c)
            }
        };
        Some(Token { word, line })
    }

    fn skip_blank(&mut self) {
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('/')) => {
                    while self.peek(0).is_some() && self.bump() != Some('\n') {}
                }
                (Some('/'), Some('*')) => self.block_comment(),
                (Some(c), _) if c.is_whitespace() => {
                    self.bump();
                }
                _ => return,
            }
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                (Some('/'), Some('*')) => depth += 1,
                (Some('*'), Some('/')) => depth -= 1,
                (None, _) => return,
                _ => {
                    self.bump();
                    continue;
                }
            }
            self.at += 2;
            if depth == 0 {
                return;
            }
        }
    }

    /// At the opening quote.
    fn string(&mut self) -> Word {
        self.bump();
        while let Some(c) = self.bump() {
            match c {
                '\\' => {
                    self.bump();
                }
                '"' => break,
                _ => {}
            }
        }
        Word::Sign('"')
    }

    /// At the first `#` or the quote after `r`.
    fn raw_string(&mut self) -> Word {
        let mut hashes = 0;
        while self.peek(0) == Some('#') {
            self.bump();
            hashes += 1;
        }
        self.bump();
        while let Some(c) = self.bump() {
            if c == '"' && (0..hashes).all(|ahead| self.peek(ahead) == Some('#')) {
                self.at += hashes;
                break;
            }
        }
        Word::Sign('"')
    }

    fn char_or_lifetime(&mut self) -> Word {
        self.bump();
        if self.peek(0) == Some('\\') {
            self.at += 2;
            while self.bump().is_some_and(|c| c != '\'') {}
        } else if self.peek(1) == Some('\'') {
            self.bump();
            self.bump();
        } else {
            self.word();
            return Word::Sign('\'');
        }
        Word::Sign('"')
    }

    /// An identifier or number, or the prefix of a literal and the literal.
    fn word(&mut self) -> Word {
        let mut name = String::new();
        while let Some(c) = self.peek(0).filter(|c| c.is_alphanumeric() || *c == '_') {
            name.push(c);
            self.bump();
        }
        match (name.as_str(), self.peek(0)) {
            ("b" | "c", Some('"')) => self.string(),
            ("b", Some('\'')) => self.char_or_lifetime(),
            ("r" | "br" | "cr", Some('"')) => self.raw_string(),
            ("r" | "br" | "cr", Some('#')) if matches!(self.peek(1), Some('#' | '"')) => {
                self.raw_string()
            }
            ("r", Some('#')) => {
                self.bump();
                self.word()
            }
            _ => Word::Ident(name),
        }
    }
}

/// What is left of a file without its tests, and the modules that it declares for tests only.
#[derive(Debug, Default)]
pub struct Shipped {
    pub tokens: Vec<Token>,
    pub test_modules: Vec<String>,
}

/// Takes out every item under `#[cfg(test)]`; of a file under `#![cfg(test)]` nothing is left.
pub fn without_tests(tokens: &[Token]) -> Shipped {
    let mut shipped = Shipped::default();
    let mut at = 0;
    while at < tokens.len() {
        let inner = tokens[at].is_sign('#') && tokens.get(at + 1).is_some_and(|t| t.is_sign('!'));
        if inner && is_cfg_test(&tokens[at + 2..]) {
            return Shipped::default();
        }
        if tokens[at].is_sign('#') && is_cfg_test(&tokens[at + 1..]) {
            let end = item_end(tokens, at);
            let item = &tokens[at..end];
            if let Some([_, name, _]) =
                item.windows(3).find(|w| w[0].is_ident("mod") && w[2].is_sign(';'))
            {
                shipped.test_modules.extend(name.ident().map(str::to_owned));
            }
            at = end;
        } else {
            shipped.tokens.push(tokens[at].clone());
            at += 1;
        }
    }
    shipped
}

/// `[cfg(test)]` or `[cfg(all(test, ...))]` at the start of `tokens`.
fn is_cfg_test(tokens: &[Token]) -> bool {
    let starts = |words: &[&str]| {
        words.len() <= tokens.len()
            && words.iter().zip(tokens).all(|(word, token)| match &token.word {
                Word::Ident(name) => name == word,
                Word::Sign(sign) => word.chars().eq([*sign]),
                Word::PathSep => false,
            })
    };
    starts(&["[", "cfg", "(", "test", ")"]) || starts(&["[", "cfg", "(", "all", "(", "test"])
}

/// The end of the item whose attributes start at `at`.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|t| t.is_sign('#')) {
        at = group_end(tokens, at + 1);
    }
    let is_use = tokens[at..].iter().take_while(|t| !t.is_sign('{')).any(|t| t.is_ident("use"));
    while at < tokens.len() {
        match tokens[at].word {
            Word::Sign(';') => return at + 1,
            Word::Sign('{') => {
                at = group_end(tokens, at);
                if !is_use {
                    return at;
                }
            }
            Word::Sign('(' | '[') => at = group_end(tokens, at),
            // A field or a statement: the block around it ends.
            Word::Sign('}' | ')' | ']') => return at,
            _ => at += 1,
        }
    }
    at
}

/// Behind the bracket that closes the one at `at`.
fn group_end(tokens: &[Token], mut at: usize) -> usize {
    let mut depth = 0;
    while at < tokens.len() {
        match tokens[at].word {
            Word::Sign('(' | '[' | '{') => depth += 1,
            Word::Sign(')' | ']' | '}') => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return at;
        }
    }
    at
}
