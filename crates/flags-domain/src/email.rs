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

/// Returns the form in which searches compare texts: in lower case and normalization form C.
pub fn search_form(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    // Lower-casing may break the normalization, and needs composed characters.
    text.nfc().collect::<String>().to_lowercase().nfc().collect()
}

/// Returns the texts by which a search finds an e-mail address, the first one as it was entered: the domain may be
/// searched in its Unicode form and in its ASCII form.
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
        ] {
            assert_eq!(email_key(address), key, "{address}");
            assert_eq!(email_key(key), key, "the form of a key is the key itself");
        }
    }

    #[test]
    fn addresses_are_searched_by_both_forms_of_the_domain() {
        for (address, forms) in [
            ("Ann@Example.COM", &["ann@example.com"][..]),
            ("Ann@MÜNCHEN.example", &["ann@münchen.example", "ann@xn--mnchen-3ya.example"]),
            ("ann@xn--mnchen-3ya.example", &["ann@xn--mnchen-3ya.example", "ann@münchen.example"]),
            ("Zoe\u{308}@example.com", &["zo\u{eb}@example.com"]),
            ("a@\u{ff22}.jp", &["a@\u{ff42}.jp", "a@b.jp"]),
        ] {
            assert_eq!(email_search_forms(address), forms, "{address}");
        }
    }
}
