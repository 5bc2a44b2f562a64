//! Comparison of e-mail addresses, and of texts in searches.

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
    let Some((local, domain)) = email.rsplit_once('@') else { return search_form(email) };
    let domain = idna::domain_to_ascii(domain).unwrap_or_else(|_| search_form(domain));
    format!("{}@{domain}", search_form(local))
}

/// Maximum length of a text that conditions compare as an address, in bytes. Longer than every stored address.
const MAX_ADDRESS_BYTES: usize = 2_048;

/// Returns the form in which conditions compare an e-mail address or a part of one. `None` if the text already has this
/// form.
///
/// The form is like [`email_key`], but the domain is in its Unicode form, so that conditions can compare parts of the
/// domain. Two addresses have the same form if and only if they have the same key.
///
/// Domains in texts longer than [`MAX_ADDRESS_BYTES`] stay in their ASCII form, because their conversion takes quadratic
/// time. Such a text is not an address.
pub(crate) fn comparable_email(text: &str) -> Option<String> {
    let has_ascii_domain_label = text.len() <= MAX_ADDRESS_BYTES && contains_punycode(text);
    if text.is_ascii() && !has_ascii_domain_label {
        return text.bytes().any(|byte| byte.is_ascii_uppercase()).then(|| text.to_ascii_lowercase());
    }
    let address = if text.len() <= MAX_ADDRESS_BYTES { text.rsplit_once('@') } else { None };
    let form = match address {
        Some((local, domain)) => format!("{}@{}", search_form(local), unicode_domain(domain)),
        // Without an `@`, a text with an encoded label is a part of a domain.
        None if has_ascii_domain_label => unicode_domain(text),
        None => search_form(text),
    };
    (form != text).then_some(form)
}

fn unicode_domain(domain: &str) -> String {
    match idna::domain_to_unicode(domain) {
        (domain, Ok(())) => domain,
        (_, Err(_)) => search_form(domain),
    }
}

/// Whether the text may contain a label of an internationalized domain in its ASCII form.
fn contains_punycode(text: &str) -> bool {
    text.as_bytes().windows(4).any(|bytes| bytes.eq_ignore_ascii_case(b"xn--"))
}

/// Returns the form in which searches compare texts: in lower case and normalization form C (UAX 15).
///
/// The lower case of a character does not depend on its neighbors, so searches find parts of a text.
pub fn search_form(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let lower = text.nfc().flat_map(char::to_lowercase);
    // `ς` is the form of `σ` at the end of a word. Conversion to lower case can undo the normalization.
    lower.map(|character| if character == 'ς' { 'σ' } else { character }).nfc().collect()
}

/// Returns the texts by which a search finds an e-mail address, in the [`search_form`] and without duplicates: first
/// the address as entered, then the address with its domain in Unicode and in ASCII.
pub fn email_search_forms(email: &str) -> Vec<String> {
    let mut forms = vec![search_form(email)];
    let key = email_key(email);
    if let Some((local, domain)) = key.rsplit_once('@')
        && domain.contains("xn--")
    {
        let (unicode_domain, _) = idna::domain_to_unicode(domain);
        forms.push(format!("{local}@{}", search_form(&unicode_domain)));
    }
    forms.push(key);
    let mut seen = std::collections::HashSet::new();
    forms.retain(|form| seen.insert(form.clone()));
    forms
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
            ("ΟΔΟΣ@example.com", "οδοσ@example.com"),
            ("οδος@example.com", "οδοσ@example.com"),
        ] {
            assert_eq!(email_key(address), key, "{address}");
            assert_eq!(email_key(key), key, "the form of a key is the key itself");
        }
    }

    fn comparable(text: &str) -> String {
        comparable_email(text).unwrap_or_else(|| text.to_owned())
    }

    #[test]
    fn parts_of_addresses_have_the_same_form_as_within_the_address() {
        let address = comparable("Zoe\u{308}.ΟΔΟΣ@Mail.XN--MNCHEN-3YA.Example");
        assert_eq!(address, "zo\u{eb}.οδοσ@mail.münchen.example");
        for part in ["ZO\u{cb}", ".ΟΔΟΣ@", "οδος@mail", "@MAIL.MÜNCHEN", "xn--mnchen-3ya.example", "München", "@", ""]
        {
            assert!(address.contains(&comparable(part)), "{part}");
        }
        assert_eq!(comparable_email("ann@example.com"), None);
        assert_eq!(comparable_email("ann@münchen.example"), None);
    }

    proptest::proptest! {
        #[test]
        fn comparable_forms_are_equal_if_and_only_if_the_keys_are(
            first in "[aAñÑσςΣ.]{1,3}@(mün|MÜN|xn--mn-xka|XN--mn-xka|a_b|ς|σ|ß|ss|xn--a|-)(.de|.DE)?",
            second in "[aAñÑσςΣ.]{1,3}@(mün|MÜN|xn--mn-xka|XN--mn-xka|a_b|ς|σ|ß|ss|xn--a|-)(.de|.DE)?",
        ) {
            let (keys, forms) =
                ((email_key(&first), email_key(&second)), (comparable(&first), comparable(&second)));
            proptest::prop_assert_eq!(keys.0 == keys.1, forms.0 == forms.1, "{:?} {:?}", keys, forms);
            proptest::prop_assert_eq!(comparable(&forms.0), forms.0);
        }
    }
}
