//! Comparison of e-mail addresses.

use unicode_normalization::UnicodeNormalization as _;

/// Returns the form of an e-mail address by which addresses are compared: in lower case, in Unicode normalization form C
/// (UAX 15), with the domain in its ASCII form (UTS 46). A domain that is not valid is kept in lower case.
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

/// Returns a text in lower case and normalization form C. Lower-casing may break the normalization, so it comes first.
fn lower_case(text: &str) -> String {
    text.nfc().collect::<String>().to_lowercase().nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compares_addresses_in_one_form() {
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
