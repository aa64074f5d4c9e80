//! AWS Signature Version 4: reads the signature of a request, in its headers or its query, and computes what it must be.
//!
//! Written from AWS's description of the algorithm, not with the crate that the driver's client signs with. Bodies in signed
//! chunks, which S3 alone has, are the work of `s3s`.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::http::request::Parts;
use sha2::{Digest as _, Sha256};

use super::credentials::{Credentials, hex};

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// Also the answer to version 2, which S3 does not take for buckets made after June 2020.
const UNSUPPORTED: &str =
    "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256.";
/// How far the time of a request may be from now; 15 minutes for S3, whose requests `s3s` checks.
const MAX_SKEW: Duration = Duration::from_mins(5);
/// The longest life of a presigned URL, in seconds.
const MAX_EXPIRES: u64 = 7 * 24 * 3600;

/// Why a request's signature is not accepted, apart from its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SignatureError {
    /// There is none.
    Missing,
    /// A part of it is missing or malformed.
    Incomplete(String),
    /// The request is too old, or of the future.
    OutOfTime(String),
    /// It is not that of this request and this secret.
    Mismatch(String),
}

/// The signature of a request and its parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) access_key_id: String,
    pub(crate) region: String,
    pub(crate) service: String,
    pub(crate) token: Option<String>,
    day: String,
    time: String,
    /// Life of a presigned URL in seconds.
    expires: Option<u64>,
    signed_headers: Vec<String>,
    digest: String,
}

impl Signature {
    /// Reads the header `Authorization`, or the query of a presigned URL; a request with both is refused.
    pub(crate) fn read(parts: &Parts) -> Result<Self, SignatureError> {
        let query = query_pairs(parts.uri.query().unwrap_or_default());
        let of_query = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        let of_header =
            |name: &str| parts.headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
        let presigned = query.iter().any(|(key, _)| key.starts_with("X-Amz-") || key == "Signature");
        let signature = match (of_header("authorization"), presigned) {
            (None, false) => return Err(SignatureError::Missing),
            (Some(_), true) => return Err(incomplete("Only one auth mechanism allowed")),
            (Some(header), false) => {
                if parts.headers.get_all("authorization").iter().count() > 1 {
                    return Err(incomplete("Only one Authorization header allowed"));
                }
                let fields = header.strip_prefix(ALGORITHM).ok_or_else(|| incomplete(UNSUPPORTED))?;
                let field = |name: &str| {
                    let found = fields.split(',').find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
                    found
                        .map(str::to_owned)
                        .ok_or_else(|| incomplete(&format!("Authorization header requires '{name}' parameter.")))
                };
                let time = of_header("x-amz-date")
                    .ok_or_else(|| incomplete("Authorization header requires existence of 'X-Amz-Date' header."))?;
                Self {
                    time,
                    token: of_header("x-amz-security-token"),
                    signed_headers: names(&field("SignedHeaders")?),
                    digest: field("Signature")?,
                    ..Self::of_scope(&field("Credential")?)?
                }
            }
            (None, true) => {
                let field = |name: &str| of_query(name).ok_or_else(|| incomplete(&format!("Query requires '{name}'.")));
                if of_query("X-Amz-Algorithm").as_deref() != Some(ALGORITHM) {
                    return Err(incomplete(UNSUPPORTED));
                }
                let expires = field("X-Amz-Expires")?.parse().ok().filter(|seconds| *seconds <= MAX_EXPIRES);
                Self {
                    time: field("X-Amz-Date")?,
                    token: of_query("X-Amz-Security-Token"),
                    expires: Some(expires.ok_or_else(|| incomplete("X-Amz-Expires must be 0 to 604800 seconds"))?),
                    signed_headers: names(&field("X-Amz-SignedHeaders")?),
                    digest: field("X-Amz-Signature")?,
                    ..Self::of_scope(&field("X-Amz-Credential")?)?
                }
            }
        };
        if !signature.time.starts_with(&signature.day) {
            return Err(SignatureError::Mismatch(format!(
                "Date in Credential scope does not match {}",
                signature.time
            )));
        }
        Ok(signature)
    }

    /// `KEY/DAY/REGION/SERVICE/aws4_request`.
    fn of_scope(scope: &str) -> Result<Self, SignatureError> {
        match scope.split('/').collect::<Vec<_>>()[..] {
            [key, day, region, service, "aws4_request"] if day.len() == 8 => Ok(Self {
                access_key_id: key.to_owned(),
                day: day.to_owned(),
                region: region.to_owned(),
                service: service.to_owned(),
                ..Self::default()
            }),
            _ => Err(incomplete("Credential must have exactly 5 slash-delimited elements")),
        }
    }

    /// Holds the time of the request against the clock.
    pub(crate) fn check_time(&self, now: SystemTime) -> Result<(), SignatureError> {
        let time = parse_time(&self.time).ok_or_else(|| incomplete("Date must be in ISO-8601 'basic format'"))?;
        let life = self.expires.map_or(MAX_SKEW, Duration::from_secs);
        if now > time + life {
            return Err(SignatureError::OutOfTime(format!(
                "Signature expired: {} is now earlier than {}",
                self.time,
                format_time(now - life)
            )));
        }
        if time > now + MAX_SKEW {
            let latest = format_time(now + MAX_SKEW);
            return Err(SignatureError::OutOfTime(format!(
                "Signature not yet current: {} is still later than {latest}",
                self.time
            )));
        }
        Ok(())
    }

    /// Compares the signature with that of the request and the secret.
    pub(crate) fn verify(&self, parts: &Parts, body: &[u8], secret: &str) -> Result<(), SignatureError> {
        let mut headers = Vec::with_capacity(self.signed_headers.len());
        for name in &self.signed_headers {
            let values = parts.headers.get_all(name);
            let values: Vec<_> =
                values.iter().map(|value| trimmed(&String::from_utf8_lossy(value.as_bytes()))).collect();
            if values.is_empty() {
                return Err(SignatureError::Mismatch(format!("The signed header '{name}' is not in the request.")));
            }
            headers.push((name.clone(), values.join(",")));
        }
        let signed = |name: &str| self.signed_headers.iter().any(|one| one == name);
        if !signed("host") {
            return Err(SignatureError::Mismatch(
                "'Host' must be a 'SignedHeader' in the AWS Authorization.".to_owned(),
            ));
        }
        if let Some(name) =
            parts.headers.keys().find(|name| name.as_str().starts_with("x-amz-") && !signed(name.as_str()))
        {
            return Err(SignatureError::Mismatch(format!("The header '{name}' of the request was not signed.")));
        }
        let canonical = canonical_request(
            parts.method.as_str(),
            parts.uri.path(),
            parts.uri.query().unwrap_or_default(),
            &headers,
            body,
        );
        // Compares in constant time.
        let held = unhex(&self.digest).is_some_and(|digest| self.mac(&canonical, secret).verify_slice(&digest).is_ok());
        let message = "The request signature we calculated does not match the signature you provided.";
        if held { Ok(()) } else { Err(SignatureError::Mismatch(message.to_owned())) }
    }

    fn scope(&self) -> String {
        format!("{}/{}/{}/aws4_request", self.day, self.region, self.service)
    }

    fn mac(&self, canonical: &str, secret: &str) -> Hmac<Sha256> {
        let hash = hex(&Sha256::digest(canonical));
        let text = format!("{ALGORITHM}\n{}\n{}\n{hash}", self.time, self.scope());
        let mut key = format!("AWS4{secret}").into_bytes();
        for part in [self.day.as_str(), &self.region, &self.service, "aws4_request"] {
            key = hmac(&key, part).finalize().into_bytes().to_vec();
        }
        hmac(&key, &text)
    }
}

/// A request that [`Credentials::sign`] signs.
#[derive(Debug, Clone, Copy)]
pub struct Unsigned<'a> {
    pub method: &'a str,
    /// As it is sent.
    pub path: &'a str,
    /// As it is sent, without the question mark.
    pub query: &'a str,
    /// Lower case names; `host` must be there.
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
    /// `sagemaker`, `logs`, `sts`, `s3`; `emulator` for the emulator's own paths.
    pub service: &'a str,
    pub region: &'a str,
    pub time: SystemTime,
}

impl Credentials {
    /// The further headers that the request must have.
    pub fn sign(&self, request: &Unsigned) -> Vec<(&'static str, String)> {
        let time = format_time(request.time);
        let mut added = vec![("x-amz-date", time.clone())];
        added.extend(self.session_token.clone().map(|token| ("x-amz-security-token", token)));
        let has_hash = request.headers.iter().any(|(name, _)| *name == "x-amz-content-sha256");
        if request.service == "s3" && !has_hash {
            added.push(("x-amz-content-sha256", hex(&Sha256::digest(request.body))));
        }
        let given = request.headers.iter().map(|(name, value)| ((*name).to_owned(), trimmed(value)));
        let mut headers: Vec<_> = given.collect();
        headers.extend(added.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        headers.sort();
        let signature = Signature {
            day: time.chars().take(8).collect(),
            time,
            region: request.region.to_owned(),
            service: request.service.to_owned(),
            ..Signature::default()
        };
        let canonical = canonical_request(request.method, request.path, request.query, &headers, request.body);
        let digest = hex(&signature.mac(&canonical, &self.secret_access_key).finalize().into_bytes());
        let signed: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        let (key, scope) = (&self.access_key_id, signature.scope());
        let signed = signed.join(";");
        added.push((
            "authorization",
            format!("{ALGORITHM} Credential={key}/{scope}, SignedHeaders={signed}, Signature={digest}"),
        ));
        added
    }
}

/// The request in the form that is signed; `headers` are the signed ones in order.
fn canonical_request(method: &str, path: &str, query: &str, headers: &[(String, String)], body: &[u8]) -> String {
    let mut pairs: Vec<_> = query_pairs(query)
        .into_iter()
        .filter(|(name, _)| name != "X-Amz-Signature")
        .map(|(name, value)| format!("{}={}", urlencoding::encode(&name), urlencoding::encode(&value)))
        .collect();
    pairs.sort();
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let lines: Vec<_> = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let lines = lines.concat();
    let (path, query, names, body) =
        (canonical_path(path), pairs.join("&"), names.join(";"), hex(&Sha256::digest(body)));
    format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{body}")
}

/// Without `.`, `..` and empty segments; each segment encoded once more than it was sent.
fn canonical_path(path: &str) -> String {
    let mut kept = Vec::new();
    for segment in path.split('/').filter(|segment| !matches!(*segment, "" | ".")) {
        if segment == ".." {
            kept.pop();
        } else {
            kept.push(urlencoding::encode(segment));
        }
    }
    let end = if path.ends_with('/') && !kept.is_empty() { "/" } else { "" };
    format!("/{}{end}", kept.join("/"))
}

/// Decoded names and values of a query. What is not UTF-8 stays encoded.
pub(crate) fn query_pairs(query: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| urlencoding::decode(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned);
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn hmac(key: &[u8], text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac
}

fn names(list: &str) -> Vec<String> {
    list.split(';').map(str::to_lowercase).collect()
}

/// Without white space around it, and with one space for each run of them inside.
fn trimmed(value: &str) -> String {
    value.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn incomplete(message: &str) -> SignatureError {
    SignatureError::Incomplete(message.to_owned())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(text.get(at..at + 2)?, 16).ok()).collect()
}

/// `20150830T123600Z`.
fn parse_time(text: &str) -> Option<SystemTime> {
    let part = |from, to| text.get(from..to);
    let (date, clock) = text.strip_suffix('Z')?.split_once('T')?;
    if date.len() != 8 || clock.len() != 6 {
        return None;
    }
    let (year, month, day) = (part(0, 4)?, part(4, 6)?, part(6, 8)?);
    let (hour, minute, second) = (part(9, 11)?, part(11, 13)?, part(13, 15)?);
    humantime::parse_rfc3339(&format!("{year}-{month}-{day}T{hour}:{minute}:{second}Z")).ok()
}

fn format_time(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string();
    text.replace(['-', ':'], "")
}

#[cfg(test)]
mod tests {
    use hyper::Request;
    use test_case::test_case;

    use super::*;

    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";
    const TIME: &str = "20150830T123600Z";

    fn at(seconds: i64) -> SystemTime {
        let time = parse_time(TIME).unwrap();
        let shift = Duration::from_secs(seconds.unsigned_abs());
        if seconds < 0 { time - shift } else { time + shift }
    }

    fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri(uri).header("host", "example.amazonaws.com");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn authorization(signed: &str, digest: &str) -> String {
        format!(
            "{ALGORITHM} Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={signed}, Signature={digest}"
        )
    }

    // Requests and digests are those of AWS's test suite for signers, version 4.
    #[test_case("GET", "/?Param2=value2&Param1=value1", &[], "host;x-amz-date", "", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"; "query in another order")]
    #[test_case("GET", "/example/..", &[], "host;x-amz-date", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31"; "relative path")]
    #[test_case("GET", "/", &[("My-Header1", " value1"), ("My-Header2", " \"a   b   c\"")], "host;my-header1;my-header2;x-amz-date", "", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736"; "spaces in values")]
    #[test_case("GET", "/", &[("x-amz-security-token", "6e86291e8372ff2a2260956d9b8aae1d763fbf315fa00fa31553b73ebf194267")], "host;x-amz-date;x-amz-security-token", "", "07ec1639c89043aa0e3e2de82b96708f198cceab042d4a97044c66dd9f74e7f8"; "session token")]
    #[test_case("POST", "/", &[("content-type", "application/x-www-form-urlencoded"), ("content-length", "13"), ("x-amz-content-sha256", "9095672bbd1f56dfc5b65f3e153adc8731a4a654192329106275f4c7b24d0b6e")], "content-length;content-type;host;x-amz-content-sha256;x-amz-date", "Param1=value1", "d3875051da38690788ef43de4db0d8f280229d82040bfac253562e56c3f20e0b"; "form")]
    fn a_signed_request_of_the_test_suite(
        method: &str,
        uri: &str,
        headers: &[(&str, &str)],
        signed: &str,
        body: &str,
        digest: &str,
    ) {
        let authorization = authorization(signed, digest);
        let headers = [headers, &[("x-amz-date", TIME), ("authorization", authorization.as_str())]].concat();
        let parts = request(method, uri, &headers);
        let signature = Signature::read(&parts).unwrap();
        assert_eq!(signature.verify(&parts, body.as_bytes(), SECRET), Ok(()));
        let mismatch =
            |held: Result<(), SignatureError>| assert!(matches!(held, Err(SignatureError::Mismatch(_))), "{held:?}");
        mismatch(signature.verify(&parts, b"another body", SECRET));
        mismatch(signature.verify(&parts, body.as_bytes(), "another secret"));
        mismatch(signature.verify(&request(method, "/other?a=b", &headers), body.as_bytes(), SECRET));
        mismatch(signature.verify(
            &request(method, uri, &[&headers[..], &[("x-amz-target", "Unsigned")]].concat()),
            body.as_bytes(),
            SECRET,
        ));
        let shorter = Signature { digest: digest[..62].to_owned(), ..signature };
        mismatch(shorter.verify(&parts, body.as_bytes(), SECRET));
    }

    #[test]
    fn paths_are_normalized_and_encoded() {
        for (sent, canonical) in [
            ("/example space/", "/example%20space/"),
            ("/ሴ", "/%E1%88%B4"),
            ("//example//", "/example/"),
            ("/./example", "/example"),
            ("/test/@connections/JBDvjfGEIAMCERw%3D", "/test/%40connections/JBDvjfGEIAMCERw%253D"),
            ("/", "/"),
        ] {
            assert_eq!(canonical_path(sent), canonical, "{sent}");
        }
    }

    #[test]
    fn a_presigned_url_holds_until_it_expires() {
        let uri = "/?Param2=value2&Param1=value1&X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIDEXAMPLE%2F20150830%2F\
                   us-east-1%2Fservice%2Faws4_request&X-Amz-Date=20150830T123600Z&X-Amz-SignedHeaders=host&X-Amz-Expires=3600&\
                   X-Amz-Signature=86012e2c9ad4d77369f5d81c11f75158aae4f895a085212cc6d3f923d300bed5";
        let parts = request("GET", uri, &[]);
        let signature = Signature::read(&parts).unwrap();
        assert_eq!(signature.verify(&parts, b"", SECRET), Ok(()));
        assert!(signature.verify(&request("GET", &uri.replace("value1", "value3"), &[]), b"", SECRET).is_err());
        assert_eq!(signature.check_time(at(3600)), Ok(()));
        for seconds in [3601, -301] {
            assert!(matches!(signature.check_time(at(seconds)), Err(SignatureError::OutOfTime(_))), "{seconds}");
        }
        let both = request("GET", uri, &[("authorization", &authorization("host", "00")), ("x-amz-date", TIME)]);
        assert!(matches!(Signature::read(&both), Err(SignatureError::Incomplete(_))));
    }

    #[test]
    fn the_time_is_within_5_minutes() {
        let read = |time: &str| {
            Signature::read(&request(
                "GET",
                "/",
                &[("x-amz-date", time), ("authorization", &authorization("host;x-amz-date", "00"))],
            ))
        };
        let signature = read(TIME).unwrap();
        for (seconds, held) in [(0, true), (299, true), (-299, true), (301, false), (-301, false)] {
            assert_eq!(signature.check_time(at(seconds)).is_ok(), held, "{seconds}");
        }
        assert!(
            matches!(read("20150831T000000Z"), Err(SignatureError::Mismatch(_))),
            "the day of the scope is another"
        );
        for time in ["20150830", "20150830T12Z", "20150830T126000Z"] {
            assert!(matches!(read(time).unwrap().check_time(at(0)), Err(SignatureError::Incomplete(_))), "{time}");
        }
    }

    #[test]
    fn a_request_without_a_whole_signature_is_refused() {
        let read = |headers: &[(&str, &str)]| Signature::read(&request("GET", "/", headers)).unwrap_err();
        assert_eq!(read(&[]), SignatureError::Missing);
        let whole = authorization("host;x-amz-date", "00");
        let missing: Vec<_> =
            ["Credential=", "SignedHeaders=", "Signature="].map(|part| whole.replace(part, "Other=")).into();
        let others = ["AWS key:signature".to_owned(), "Basic eDp5".to_owned(), whole.replace("/service/", "/")];
        for authorization in missing.iter().chain(&others) {
            let error = read(&[("authorization", authorization), ("x-amz-date", TIME)]);
            assert!(matches!(error, SignatureError::Incomplete(_)), "{authorization}: {error:?}");
        }
        assert!(matches!(read(&[("authorization", &whole)]), SignatureError::Incomplete(_)), "no date");
        let error = Signature::read(&request("GET", "/?AWSAccessKeyId=x&Signature=y&Expires=9999999999", &[]));
        assert!(matches!(error, Err(SignatureError::Incomplete(_))), "version 2 is not taken");
    }

    #[test]
    fn what_the_credentials_sign_holds() {
        let credentials = Credentials {
            access_key_id: "AKIDEXAMPLE".to_owned(),
            secret_access_key: SECRET.to_owned(),
            session_token: Some("token".to_owned()),
        };
        let headers = [("host", "example.amazonaws.com"), ("a", "b")];
        let unsigned = Unsigned {
            method: "PUT",
            path: "/a%20b",
            query: "y=1&x",
            headers: &headers,
            body: b"body",
            service: "sts",
            region: "us-east-1",
            time: at(0),
        };
        let added = credentials.sign(&unsigned);
        let headers: Vec<_> = added.iter().map(|(name, value)| (*name, value.as_str())).chain([("a", "b")]).collect();
        let parts = request("PUT", "/a%20b?y=1&x", &headers);
        let signature = Signature::read(&parts).unwrap();
        assert_eq!((signature.service.as_str(), signature.token.as_deref()), ("sts", Some("token")));
        assert_eq!(signature.verify(&parts, b"body", SECRET), Ok(()));
    }
}
