//! Kind and number of the accelerators of instance types. Pure.

/// A family of instance types with one kind of accelerator, and its sizes by the number of these.
struct Family {
    name: &'static str,
    /// With the noun in the singular.
    kind: &'static str,
    sizes: &'static [(u32, &'static [&'static str])],
}

const UP_TO_16: &[&str] = &["xlarge", "2xlarge", "4xlarge", "8xlarge", "16xlarge"];
/// The sizes of the families g5, g6 and g6e.
const LIKE_G5: &[(u32, &[&str])] = &[(1, UP_TO_16), (4, &["12xlarge", "24xlarge"]), (8, &["48xlarge"])];

const FAMILIES: &[Family] = &[
    Family { name: "g4dn", kind: "T4 GPU", sizes: &[(1, UP_TO_16), (4, &["12xlarge"])] },
    Family { name: "g5", kind: "A10G GPU", sizes: LIKE_G5 },
    Family { name: "g6", kind: "L4 GPU", sizes: LIKE_G5 },
    Family { name: "g6e", kind: "L40S GPU", sizes: LIKE_G5 },
    Family { name: "p2", kind: "K80 GPU", sizes: &[(1, &["xlarge"]), (8, &["8xlarge"]), (16, &["16xlarge"])] },
    Family { name: "p3", kind: "V100 GPU", sizes: &[(1, &["2xlarge"]), (4, &["8xlarge"]), (8, &["16xlarge"])] },
    Family { name: "p3dn", kind: "V100 GPU", sizes: &[(8, &["24xlarge"])] },
    Family { name: "p4d", kind: "A100 GPU", sizes: &[(8, &["24xlarge"])] },
    Family { name: "p4de", kind: "A100 GPU", sizes: &[(8, &["24xlarge"])] },
    Family { name: "p5", kind: "H100 GPU", sizes: &[(1, &["4xlarge"]), (8, &["48xlarge"])] },
    Family { name: "p5e", kind: "H200 GPU", sizes: &[(8, &["48xlarge"])] },
    Family { name: "p5en", kind: "H200 GPU", sizes: &[(8, &["48xlarge"])] },
    Family { name: "p6-b200", kind: "B200 GPU", sizes: &[(8, &["48xlarge"])] },
    Family { name: "trn1", kind: "Trainium chip", sizes: &[(1, &["2xlarge"]), (16, &["32xlarge"])] },
    Family { name: "trn1n", kind: "Trainium chip", sizes: &[(16, &["32xlarge"])] },
    Family { name: "trn2", kind: "Trainium2 chip", sizes: &[(16, &["48xlarge"])] },
];

/// `4 A10G GPUs`: the accelerators of one instance. `None`: it has none, or the type is not known here.
pub fn words(instance_type: &str) -> Option<String> {
    let (family, size) = instance_type.strip_prefix("ml.")?.split_once('.')?;
    let family = FAMILIES.iter().find(|known| known.name == family)?;
    let (count, _) = family.sizes.iter().find(|(_, sizes)| sizes.contains(&size))?;
    let ending = if *count == 1 { "" } else { "s" };
    Some(format!("{count} {}{ending}", family.kind))
}

/// `ml.g5.2xlarge (1 A10G GPU)`, and the type alone where its accelerators are not known.
pub fn with_words(instance_type: &str) -> String {
    words(instance_type).map_or_else(|| instance_type.to_owned(), |words| format!("{instance_type} ({words})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_has_the_accelerators_of_its_size() {
        assert_eq!(with_words("ml.g5.2xlarge"), "ml.g5.2xlarge (1 A10G GPU)");
        assert_eq!(with_words("ml.m5.large"), "ml.m5.large");
        let known = ["ml.g4dn.12xlarge", "ml.g6e.48xlarge", "ml.p4d.24xlarge", "ml.p5.4xlarge", "ml.trn1.32xlarge"];
        assert_eq!(
            known.map(|name| words(name).unwrap()),
            ["4 T4 GPUs", "8 L40S GPUs", "8 A100 GPUs", "1 H100 GPU", "16 Trainium chips"]
        );
        for unknown in ["ml.g5.metal", "ml.g9.xlarge", "ml.c5.xlarge", "g5.xlarge", "ml.g5", "local", ""] {
            assert_eq!(words(unknown), None, "{unknown}");
        }
    }
}
