//! What may be computed together: pictures by the vision tower, prompts by the decoder.

use tch::{Device, Kind};

use super::kernels;

/// Which of several things that the same layers compute may share a pass, each of some tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// Any: their last bits may depend on the others'.
    Any,
    /// Those of more tokens than this, whose bits do not depend on it.
    Above(usize),
    /// Each is computed by itself.
    Nobody,
}

impl Company {
    /// What the operators for activations of `kind` on `device` allow. On a CPU bits never depend on company, on a GPU not where
    /// that is asked for.
    pub fn of(kind: Kind, device: Device, batch_invariant: bool) -> Company {
        match device {
            Device::Cpu if kernels::keep_rows_apart(kind) => Company::Above(kernels::MAX_FEW_ROWS as usize),
            Device::Cpu => Company::Nobody,
            _ if batch_invariant => Company::Nobody,
            _ => Company::Any,
        }
    }

    fn is_for(self, num_tokens: usize) -> bool {
        match self {
            Company::Any => true,
            Company::Above(tokens) => num_tokens > tokens,
            Company::Nobody => false,
        }
    }

    /// Cuts `things` of so many tokens into those that are computed together: neighbours, up to `most` tokens unless one alone has
    /// more.
    pub fn passes<T>(self, things: &[T], most: usize, num_tokens: impl Fn(&T) -> usize) -> Vec<&[T]> {
        let mut passes = Vec::new();
        let mut rest = things;
        while let Some(first) = rest.first() {
            let (mut len, mut tokens) = (1, num_tokens(first));
            if self.is_for(tokens) {
                let others = rest[1..].iter().map(&num_tokens);
                for other in others.take_while(|tokens| self.is_for(*tokens)) {
                    tokens += other;
                    if tokens > most {
                        break;
                    }
                    len += 1;
                }
            }
            let (pass, others) = rest.split_at(len);
            passes.push(pass);
            rest = others;
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::Company;

    fn passes(company: Company, tokens: &[usize]) -> Vec<&[usize]> {
        company.passes(tokens, 512, |tokens| *tokens)
    }

    #[test]
    fn a_pass_is_shared_as_long_as_there_is_room() {
        assert_eq!(passes(Company::Any, &[200, 300, 12, 1, 511]), [&[200, 300, 12][..], &[1, 511]]);
        assert_eq!(passes(Company::Any, &[513, 5, 6]), [&[513][..], &[5, 6]]);
        assert!(passes(Company::Any, &[]).is_empty());
    }

    #[test]
    fn where_company_counts_everyone_is_alone() {
        assert_eq!(passes(Company::Nobody, &[20, 30]), [&[20][..], &[30]]);
        assert_eq!(passes(Company::Above(16), &[20, 30, 16, 17]), [&[20, 30][..], &[16], &[17]]);
    }
}
