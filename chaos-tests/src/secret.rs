//! Secrets, and every form in which one could have been written down.

use std::fmt;

use data_encoding::{BASE32_NOPAD, BASE64, BASE64URL, HEXLOWER, HEXUPPER};

/// Characters at either end of a text in base 64 that hang on what stands beside the secret.
const BASE64_EDGE: usize = 2;

/// One secret, and what it may never be found in.
pub struct Secret {
    name: String,
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.name)
    }
}

impl Secret {
    /// A secret that is handed around as text.
    #[must_use]
    pub fn text(name: &str, text: &str) -> Self {
        let mut secret = Self::bytes(name, text.as_bytes());
        secret.forms.push(("capitals", text.to_ascii_uppercase().into_bytes()));
        secret
    }

    /// A secret that is bytes: a key.
    #[must_use]
    pub fn bytes(name: &str, bytes: &[u8]) -> Self {
        let base32 = BASE32_NOPAD.encode(bytes);
        let mut forms = vec![
            ("raw", bytes.to_vec()),
            ("hex", HEXLOWER.encode(bytes).into_bytes()),
            ("hex in capitals", HEXUPPER.encode(bytes).into_bytes()),
            ("base 32", base32.to_ascii_lowercase().into_bytes()),
            ("base 32 in capitals", base32.into_bytes()),
            // As `{:?}` writes bytes; without its brackets, since it may stand within others.
            ("a list of numbers", format!("{bytes:?}").trim_matches(['[', ']']).as_bytes().to_vec()),
        ];
        // Within other bytes a secret may begin at any of three places of a group of base 64.
        for shift in 0..3 {
            let shifted = [vec![0; shift], bytes.to_vec()].concat();
            for encoding in [&BASE64, &BASE64URL] {
                let text = encoding.encode(&shifted);
                let text = text.trim_end_matches('=');
                let (from, to) = (BASE64_EDGE + shift, text.len().saturating_sub(BASE64_EDGE));
                forms.push(("base 64", text.get(from..to).unwrap_or_default().as_bytes().to_vec()));
            }
        }
        Self { name: name.to_owned(), forms }
    }

    /// What the secret is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The form in which it stands in `bytes`, if it does.
    #[must_use]
    pub fn found_in(&self, bytes: &[u8]) -> Option<&'static str> {
        self.forms.iter().find(|(_, form)| contains(bytes, form)).map(|(name, _)| *name)
    }
}

fn contains(bytes: &[u8], form: &[u8]) -> bool {
    let Some((first, _)) = form.split_first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(form) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 32] = *b"\x01\xfe a key of thirty-two bytes. \x80\x7f";

    #[test]
    fn a_secret_is_found_in_every_form_and_place() {
        let secret = Secret::bytes("a key", &KEY);
        let within = [b"DER head".as_slice(), &KEY, b"tail"].concat();
        let pem = |skip: usize| BASE64.encode(&within[skip..]);
        for text in [
            HEXLOWER.encode(&KEY),
            HEXUPPER.encode(&KEY),
            format!("SecretKey({KEY:?})"),
            BASE32_NOPAD.encode(&KEY),
            pem(0),
            pem(1),
            pem(2),
            BASE64URL.encode(&within),
        ] {
            let logged = format!("2026-01-01 WARN the key is {text}, which it should not be");
            assert!(secret.found_in(logged.as_bytes()).is_some(), "{text}");
        }
        assert_eq!(secret.found_in(&within), Some("raw"));
        assert_eq!(secret.found_in(b"2026-01-01 INFO nothing of it"), None);
        let mut other = KEY;
        other[16] ^= 1;
        assert_eq!(secret.found_in(BASE64.encode(&other).as_bytes()), None);
    }

    #[test]
    fn a_token_is_found_as_it_is_typed() {
        let secret = Secret::text("a token", "fdt_1234_abcdefgh");
        assert!(secret.found_in(b"--token fdt_1234_abcdefgh").is_some());
        assert!(secret.found_in(b"FDT_1234_ABCDEFGH").is_some());
        assert!(secret.found_in(b"fdt_1234_abcdefgi").is_none());
    }
}
