use crate::words::hash_word;

/// The commonest words of some languages, by ISO 639-3 code: sentences are hardly written without them.
const LISTS: &[(&str, &str)] = &[
    (
        "eng",
        "the be to of and that have with is are in for on it as this by an or not you we at from can will",
    ),
    (
        "deu",
        "der die das und ist sind in zu den mit von auf für ein eine nicht sich des dem im werden wird oder als auch",
    ),
    (
        "fra",
        "le la les de des du et est sont un une en pour que qui dans par sur avec pas il elle nous vous au aux ce",
    ),
    ("spa", "el la los las de del y es son un una en para que por con no se su al lo como más o este esta"),
    (
        "ita",
        "il lo la i gli le di del della e è sono un una in per che con non si da al come più o questo questa",
    ),
    (
        "por",
        "o a os as de do da dos das e é são um uma em para que por com não se no na ao como mais ou este esta",
    ),
    (
        "nld",
        "de het een en is zijn in van op te dat die voor met niet aan er om ook als bij door worden wordt of naar",
    ),
    ("swe", "och att det i en ett är som på för med av den till inte om de har kan från vi eller ska"),
    ("dan", "og at det i en et er som på for med af den til ikke om de har kan fra vi eller skal"),
    ("nob", "og at det i en et er som på for med av den til ikke om de har kan fra vi eller skal"),
    ("pol", "i w na z do się jest nie to że o jak po za od przez dla są lub oraz być tym który która"),
    ("ces", "a v na se je že s z do to o jako pro po ve za od jsou není nebo být který která"),
    ("ron", "și de la în cu pe un o este sunt nu că din pentru mai se prin sau care ca la al a"),
    ("hun", "a az és hogy nem is egy van ez de meg csak már vagy ha mint el ki kell volt"),
    ("fin", "ja on ei se että en hän oli mutta ovat joka tai kun niin myös ole sen kuin voi"),
    ("tur", "ve bir bu da de için ile olarak çok daha en gibi ne olan var ya veya değil kadar"),
    ("rus", "и в не на что с по как это к из для от за но то или мы он она они был быть при"),
    ("ukr", "і в не на що з по як це до із для від за але або ми він вона вони був бути при та"),
    ("cat", "el la els les de del i és són un una en per que amb no es al com més o aquest aquesta"),
];

/// The stop words of every language that has a list, as word hashes.
#[derive(Clone, Debug)]
pub(crate) struct StopWords {
    lists: Vec<(&'static str, Vec<u64>)>,
}

impl StopWords {
    pub(crate) fn new() -> Self {
        let hashes = |words: &str| {
            let mut hashes: Vec<u64> = words.split(' ').map(hash_word).collect();
            hashes.sort_unstable();
            hashes.dedup();
            hashes
        };
        Self { lists: LISTS.iter().map(|(language, words)| (*language, hashes(words))).collect() }
    }

    /// How many different stop words stand among the words, looking no further than `enough`; `None` where the
    /// language has no list.
    pub(crate) fn count(&self, language: Option<&str>, words: &[u64], enough: u64) -> Option<u64> {
        let (_, list) = self.lists.iter().find(|(known, _)| Some(*known) == language)?;
        let mut found: u32 = 0;
        for word in words {
            if let Ok(index) = list.binary_search(word) {
                found |= 1 << index;
                if u64::from(found.count_ones()) >= enough {
                    break;
                }
            }
        }
        Some(u64::from(found.count_ones()))
    }

    /// Whether a language has a list.
    pub(crate) fn knows(&self, language: Option<&str>) -> bool {
        LISTS.iter().any(|(known, _)| Some(*known) == language)
    }
}

#[cfg(test)]
mod tests {
    use super::{LISTS, StopWords};
    use crate::words::Words;

    #[test]
    fn different_stop_words_are_counted_where_there_is_a_list() {
        let lists = StopWords::new();
        assert!(lists.lists.iter().all(|(_, list)| (15..=32).contains(&list.len())));
        let count = |language, text: &str| {
            let mut words = Words::default();
            words.read(text);
            lists.count(Some(language), &words.hashes, 10)
        };
        assert_eq!(count("eng", "The cat AND the dog"), Some(2));
        assert_eq!(count("deu", "Für die Katze und DIE Hündin"), Some(3));
        assert_eq!(count("tlh", "nuqneH"), None);
        assert_eq!(LISTS.len(), 19);
    }
}
