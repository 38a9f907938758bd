import RouterProtocol
import Testing

@Suite struct LineFramerTests {
    private func feed(_ bytes: [UInt8], to framer: inout LineFramer, atLeast: Int? = nil) {
        framer.withFreeSpace(atLeast: atLeast ?? bytes.count) { free, count in
            free.copyBytes(from: bytes)
            count = bytes.count
        }
    }

    private func lines(of framer: inout LineFramer) -> (lines: [[UInt8]], overflow: Bool) {
        var lines: [[UInt8]] = []
        while true {
            switch framer.next({ line in line.withUnsafeBufferPointer { Array($0) } }) {
            case .line(let line): lines.append(line)
            case .incomplete: return (lines, false)
            case .overflow: return (lines, true)
            }
        }
    }

    @Test("several lines of one read come one by one, without their newlines")
    func severalLines() {
        var framer = LineFramer(lineBytesMax: 100)
        feed(bytes("one\n\ntwo\nthr"), to: &framer)
        let (got, overflow) = lines(of: &framer)
        #expect(got == [bytes("one"), [], bytes("two")] && !overflow)
        #expect(framer.heldBytes == 3)
        feed(bytes("ee\n"), to: &framer)
        #expect(lines(of: &framer).lines == [bytes("three")])
        #expect(framer.heldBytes == 0)
    }

    @Test("a line of exactly the longest length passes, one byte more overflows for good")
    func longest() {
        var framer = LineFramer(lineBytesMax: 5)
        feed(bytes("12345\n"), to: &framer)
        #expect(lines(of: &framer).lines == [bytes("12345")])
        feed(bytes("ok\n123456\nok\n"), to: &framer)
        let (got, overflow) = lines(of: &framer)
        #expect(got == [bytes("ok")] && overflow)
        feed(bytes("ok\n"), to: &framer)
        #expect(lines(of: &framer).overflow)
        #expect(framer.heldBytes <= 3)
    }

    @Test("where long lines are cut, their beginning comes, and the lines around them are whole, whatever the reads")
    func cut() {
        let text = bytes("one\n12345\n123456\ntwo\n" + String(repeating: "x", count: 40) + "\n\nthree\n")
        for size in 1...text.count {
            var framer = LineFramer(lineBytesMax: 5, cutsLongLines: true)
            var got: [[UInt8]] = []
            for start in stride(from: 0, to: text.count, by: size) {
                feed(Array(text[start..<min(start + size, text.count)]), to: &framer)
                got += lines(of: &framer).lines
            }
            #expect(got == ["one", "12345", "12345", "two", "xxxxx", "", "three"].map { bytes($0) }, "\(size)")
            #expect(framer.heldBytes == 0)
        }
    }

    @Test("a line without end overflows before its newline comes, and its memory goes back")
    func endless() {
        var framer = LineFramer(lineBytesMax: 100_000)
        for _ in 0..<100 { feed([UInt8](repeating: 97, count: 1000), to: &framer) }
        #expect(!lines(of: &framer).overflow)
        feed([97], to: &framer)
        #expect(lines(of: &framer).overflow)
        #expect(framer.capacity == 0)
    }

    @Test("memory of a long line goes back when all is consumed")
    func memory() {
        var framer = LineFramer(lineBytesMax: 10_000_000)
        for _ in 0..<1000 { feed([UInt8](repeating: 97, count: 1000), to: &framer, atLeast: 65536) }
        #expect(framer.capacity >= 1_000_000 && framer.capacity < 4_000_000)
        feed(bytes("\n"), to: &framer, atLeast: 65536)
        #expect(lines(of: &framer).lines.first?.count == 1_000_000)
        #expect(framer.capacity == 0)
        feed(bytes("x\n"), to: &framer, atLeast: 65536)
        #expect(lines(of: &framer).lines == [bytes("x")])
        #expect(framer.capacity == 65536)
    }

    @Test("memory shrinks too when a long line is followed by the beginning of another")
    func memoryWithRest() {
        var framer = LineFramer(lineBytesMax: 10_000_000)
        feed([UInt8](repeating: 97, count: 1_000_000) + bytes("\nrest"), to: &framer)
        #expect(lines(of: &framer).lines.count == 1)
        feed(bytes(" of it"), to: &framer, atLeast: 65536)
        #expect(framer.capacity < 200_000)
        feed(bytes("\n"), to: &framer, atLeast: 65536)
        #expect(lines(of: &framer).lines == [bytes("rest of it")])
    }

    @Test("a read that returns nothing, or claims more than there was room for, changes nothing it must not")
    func oddReads() {
        var framer = LineFramer(lineBytesMax: 100)
        framer.withFreeSpace(atLeast: 10) { _, _ in }
        #expect(framer.heldBytes == 0)
        framer.withFreeSpace(atLeast: 10) { free, count in
            free.initializeMemory(as: UInt8.self, repeating: 98)
            count = .max
        }
        #expect(framer.heldBytes == framer.capacity)
        framer.withFreeSpace(atLeast: 0) { _, count in count = -5 }
    }

    @Test("a thrown error of a read leaves the framer as it was")
    func throwingRead() {
        struct Refused: Error {}
        var framer = LineFramer(lineBytesMax: 100)
        feed(bytes("ab"), to: &framer)
        do throws(Refused) {
            try framer.withFreeSpace(atLeast: 10) { _, _ throws(Refused) in throw Refused() }
            Issue.record("nothing was thrown")
        } catch {}
        feed(bytes("c\n"), to: &framer)
        #expect(lines(of: &framer).lines == [bytes("abc")])
    }

    @Test("any text cut into any reads gives the lines that splitting it gives", arguments: 0..<200 as Range<UInt64>)
    func anyCuts(seed: UInt64) {
        var generator = SeededGenerator(seed: seed)
        var text: [UInt8] = []
        for _ in 0..<Int.random(in: 0...60, using: &generator) {
            let length = Bool.random(using: &generator) ? Int.random(in: 0...5000, using: &generator) : 3
            text += [UInt8](repeating: UInt8.random(in: 32...126, using: &generator), count: length) + [10]
        }
        text += bytes("rest")
        var framer = LineFramer(lineBytesMax: 5000)
        var got: [[UInt8]] = []
        var rest = text[...]
        while !rest.isEmpty {
            let piece = rest.prefix(Int.random(in: 1...9000, using: &generator))
            rest = rest.dropFirst(piece.count)
            feed(Array(piece), to: &framer, atLeast: max(piece.count, Int.random(in: 0...65536, using: &generator)))
            got += lines(of: &framer).lines
        }
        let expected = text.split(separator: 10, omittingEmptySubsequences: false).dropLast().map { Array($0) }
        #expect(got == expected)
        #expect(framer.heldBytes == 4)
    }

    @Test("a long line that comes in small pieces is looked at once")
    func linear() {
        // Sixteen megabytes in reads of 4 KiB: work that grew with the square would be 32 GiB of looking.
        var framer = LineFramer(lineBytesMax: 16 << 20)
        let piece = [UInt8](repeating: 97, count: 4096)
        for _ in 0..<4095 {
            feed(piece, to: &framer, atLeast: 65536)
            guard case .incomplete = framer.next({ $0.count }) else { break }
        }
        feed(bytes("\n"), to: &framer, atLeast: 65536)
        guard case .line(let count) = framer.next({ $0.count }) else {
            Issue.record("no line")
            return
        }
        #expect(count == 4095 * 4096)
    }
}
