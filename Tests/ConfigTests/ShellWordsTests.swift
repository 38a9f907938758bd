import Config
import Testing

@Suite struct ShellWordsTests {
    @Test(
        "a command is split as a POSIX shell would split it",
        arguments: [
            ("python3 route.py", ["python3", "route.py"]),
            ("  a \t b\nc  ", ["a", "b", "c"]),
            ("jq -c '{a: .b}'", ["jq", "-c", "{a: .b}"]),
            (#"a "b c" d"#, ["a", "b c", "d"]),
            (#"a\ b c"#, ["a b", "c"]),
            (#"x '' "" y"#, ["x", "", "", "y"]),
            (#"x a'b'"c"d"#, ["x", "abcd"]),
            (#"x "\$\`\"\\" "\n""#, ["x", "$`\"\\", "\\n"]),
            (#"x '\'"#, ["x", "\\"]), (#"x 'it'\''s'"#, ["x", "it's"]),
            ("x a\\\nb \"c\\\nd\"", ["x", "ab", "cd"]),
            ("x $HOME * | > ; & # ~", ["x", "$HOME", "*", "|", ">", ";", "&", "#", "~"]),
            ("é 'ü ö'", ["é", "ü ö"]),
        ])
    func splits(command: String, expected: [String]) throws {
        #expect(try ShellWords.split(command) == expected)
    }

    @Test("what is no command is refused with its reason")
    func refused() {
        #expect(throws: ShellWordsError.noProgram) { try ShellWords.split("") }
        #expect(throws: ShellWordsError.noProgram) { try ShellWords.split(" \n") }
        #expect(throws: ShellWordsError.noProgram) { try ShellWords.split("'' a") }
        #expect(throws: ShellWordsError.unterminatedQuote("'")) { try ShellWords.split("a 'b") }
        #expect(throws: ShellWordsError.unterminatedQuote("\"")) { try ShellWords.split("a \"b\\\"") }
        #expect(throws: ShellWordsError.nothingAfterBackslash) { try ShellWords.split("a \\") }
        #expect(throws: ShellWordsError.nul) { try ShellWords.split("a\0b") }
        #expect(throws: ShellWordsError.nul) { try ShellWords.split("a '\0'") }
        #expect(throws: ShellWordsError.nul) { try ShellWords.split("a \\\0") }
    }

    @Test("joined words are split into the same words again")
    func joined() throws {
        var random = SeededGenerator(seed: 3)
        let alphabet = Array("ab'\"\\ \n\t$`é{}=,".unicodeScalars)
        for _ in 0..<20_000 {
            var words = ["p"]
            for _ in 0..<Int.random(in: 0..<5, using: &random) {
                words.append(random.text(of: alphabet, lengthBelow: 6))
            }
            #expect(try ShellWords.split(ShellWords.join(words)) == words)
        }
    }

    @Test("random text never traps, and its words have no NUL")
    func fuzz() {
        var random = SeededGenerator(seed: 4)
        let alphabet = Array("a'\"\\ \n\0$é".unicodeScalars)
        for _ in 0..<50_000 {
            guard let words = try? ShellWords.split(random.text(of: alphabet, lengthBelow: 16)) else { continue }
            #expect(!words.isEmpty && words.allSatisfy { !$0.unicodeScalars.contains("\0") })
        }
    }
}

extension SeededGenerator {
    mutating func text(of alphabet: [Unicode.Scalar], lengthBelow bound: Int) -> String {
        var text = ""
        for _ in 0..<Int.random(in: 0..<bound, using: &self) {
            text.unicodeScalars.append(alphabet.randomElement(using: &self) ?? "a")
        }
        return text
    }
}
