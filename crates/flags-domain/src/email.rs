//! Comparison of e-mail addresses.

use unicode_normalization::UnicodeNormalization as _;

/// Returns the normalized form by which e-mail addresses are compared.
///
/// The form is in lower case and in Unicode normalization form C (UAX 15), with the domain in its
/// ASCII form (UTS 46). An invalid domain is normalized like the part before the `@`.
///
/// ```
/// use flags_domain::email_key;
///
/// assert_eq!(email_key("Ann@M\u{fc}nchen.example"), email_key("ann@xn--mnchen-3ya.example"));
/// assert_eq!(email_key("Zoe\u{308}@example.com"), email_key("zo\u{eb}@EXAMPLE.com"));
/// ```
pub fn email_key(email: &str) -> String {
    if email.is_ascii() {
        return email.to_ascii_lowercase();
    }
    let Some((local, domain)) = email.rsplit_once('@') else { return lower_case(email) };
    let domain = idna::domain_to_ascii(domain).unwrap_or_else(|_| lower_case(domain));
    format!("{}@{domain}", lower_case(local))
}

/// Converts a text to lower case and normalization form C. Conversion to lower case can undo the
/// normalization, so the text is normalized again.
fn lower_case(text: &str) -> String {
    text.nfc().collect::<String>().to_lowercase().nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_differ_in_case_or_encoding_have_the_same_key() {
        for (address, key) in [
            ("Ann@Example.COM", "ann@example.com"),
            ("ANN@MÜNCHEN.example", "ann@xn--mnchen-3ya.example"),
            ("ann@mu\u{308}nchen.example", "ann@xn--mnchen-3ya.example"),
            ("Zoe\u{308}@example.com", "zo\u{eb}@example.com"),
            ("\u{212a}im@example.com", "kim@example.com"),
            ("ann@例え.jp", "ann@xn--r8jz45g.jp"),
            ("ü@a b", "ü@a b"),
        ] {
            assert_eq!(email_key(address), key, "{address}");
            assert_eq!(email_key(key), key, "the form of a key is the key itself");
        }
    }
}
